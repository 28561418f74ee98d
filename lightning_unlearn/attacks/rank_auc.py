"""Rank AUC per sample: how well one margin tells which group of models a model is of.

For each sample the margins of A models of one group are ranked among those of B models of another. The attacker
knows no direction, so an AUC below 1/2 counts as much as one above; with models that differ by seeds only the mean
is therefore above 1/2 (0.584 at 16 a side, 0.552 at 40), and nothing is said without that null.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_unlearn.functional.permutation import ModelStatistic, pool
from lightning_unlearn.functional.ranks import mid_ranks

__all__ = ["MeanRankAuc", "rank_auc"]


def rank_auc(a: Tensor, b: Tensor) -> Tensor:
    """Two-sided AUC of each sample, max(A, 1 - A), A = P(a > b) + P(a = b) / 2.

    Args:
        a: Margins of one group of models, (A, N), any floating type, finite.
        b: Margins of the other, (B, N).

    Returns:
        (N,), float64, in 0.5 ... 1.
    """
    pooled, first = pool(a, b)
    return _two_sided(first.double() @ mid_ranks(pooled), len(a), len(b))[0]


class MeanRankAuc(ModelStatistic):
    """Mean over samples of the two-sided rank AUC, in 0.5 ... 1; ranks are computed once, permutations only sum them."""

    def over(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """Rank the models of each sample.

        Args:
            pooled: Margins, (M, N), float64.

        Returns:
            From groupings, (P, M), bool, to means, (P,), float64.
        """
        ranks = mid_ranks(pooled)

        def values(first: Tensor) -> Tensor:
            a = int(first[0].sum())
            return _two_sided(first.double() @ ranks, a, len(ranks) - a).mean(1)

        return values


def _two_sided(rank_sums: Tensor, a: int, b: int) -> Tensor:
    # Wilcoxon's rank sum, less the least it can be, counts the pairs that the first group wins.
    auc = (rank_sums - a * (a + 1) / 2) / (a * b)
    return torch.maximum(auc, 1 - auc)
