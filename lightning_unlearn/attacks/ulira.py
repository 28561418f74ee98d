"""U-LiRA: does a likelihood-ratio test tell models that saw a sample from models that never did?

Members are models that were trained on the sample and unlearned it. Others must be models that never saw the sample
and *went through the same unlearning* of other data: against models that were not unlearned the attack finds the
unlearning, not the sample. Every model is judged by distributions fitted without it; judged by its own, 10 models a
side read 60 % where nothing leaks. Hayes et al., "Inexact unlearning needs more careful evaluations", 2024.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.permutation import ModelStatistic, pool
from lightning_unlearn.functional.ranks import mid_ranks

__all__ = ["MeanUlira", "ulira"]

Form = Literal["gaussian", "rank"]

# Left out one, two models must remain for a variance.
FEWEST = 3
# Share of a sample's variance over all models below which a group's variance is taken to be this share.
_FLOOR = 1e-12


def ulira(members: Tensor, others: Tensor, form: Form = "gaussian") -> Tensor:
    """Leave-one-out balanced accuracy of the likelihood-ratio test, for each sample.

    Args:
        members: Margins of models that unlearned the sample, (A, N), A >= 3, any floating type, finite: margins, not
            0/1 correctness, which throws away what the attack looks at.
        others: Margins of models that never saw it and unlearned other data, (B, N), B >= 3.
        form: "gaussian" fits a normal distribution to each group; "rank" does so to the ranks of the margins among
            all models, which outliers do not disturb.

    Returns:
        Percent, (N,), float64, in 0 ... 100; 50, or a little less, where nothing leaks.
    """
    pooled, first = pool(members, others)
    values = _prepared(pooled, form)
    return 100 * _balanced(_log_ratio(values, first).sign(), first)[0]


class MeanUlira(ModelStatistic):
    """Mean over samples of the leave-one-out balanced accuracy, in percent.

    Args:
        form: As in `ulira`.
    """

    def __init__(self, form: Form = "gaussian") -> None:
        self.form: Form = form

    def over(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """Centre the margins, or rank them.

        Args:
            pooled: Margins, (M, N), float64.

        Returns:
            From groupings, (P, M), bool, to percent, (P,), float64.
        """
        values = _prepared(pooled, self.form)
        return lambda first: 100 * _balanced(_log_ratio(values, first).sign(), first).mean(1)


def _prepared(pooled: Tensor, form: Form) -> Tensor:
    if form not in ("gaussian", "rank"):
        raise DataError(f"Form {form!r} of U-LiRA; needed: gaussian or rank.")
    values = pooled if form == "gaussian" else mid_ranks(pooled)
    # Sums of squares cancel least near the mean; less one of the values, a constant sample stays exactly constant.
    return values - values.median(0).values


def _log_ratio(x: Tensor, first: Tensor) -> Tensor:
    """Twice the log-likelihood of each model's own group, fitted without it, less that of the other group.

    Args:
        x: Values, (M, N), float64.
        first: Groupings, (P, M), bool.

    Returns:
        (P, M, N), float64; positive where the model is assigned to its own group.

    Raises:
        DataError: A group is too small.
    """
    a = int(first[0].sum())
    sizes = a, len(x) - a
    if min(sizes) < FEWEST:
        raise DataError(f"U-LiRA with {sizes[0]} and {sizes[1]} models; needed: at least {FEWEST} of each group.")
    square = x.square()
    floor = _FLOOR * x.var(0) + 1e-300
    sides = []
    for group, n in ((first.double(), sizes[0]), ((~first).double(), sizes[1])):
        total, squares = (group @ x).unsqueeze(1), (group @ square).unsqueeze(1)
        own_mean = (total - x) / (n - 1)
        own_var = torch.maximum((squares - square - (n - 1) * own_mean.square()) / (n - 2), floor)
        mean = total / n
        var = torch.maximum((squares - n * mean.square()) / (n - 1), floor)
        own = -(x - own_mean).square() / own_var - own_var.log()
        other = -(x - mean).square() / var - var.log()
        sides.append((own, other))
    (own_a, other_a), (own_b, other_b) = sides
    return torch.where(first.unsqueeze(2), own_a - other_b, own_b - other_a)


def _balanced(sign: Tensor, first: Tensor) -> Tensor:
    """Balanced accuracy from the signs of log-ratios; a tie counts half.

    Args:
        sign: (P, M, N).
        first: (P, M), bool.

    Returns:
        (P, N), in 0 ... 1.
    """
    a = first.double()
    b = 1 - a
    weights = a / a.sum(1, keepdim=True) + b / b.sum(1, keepdim=True)
    return (2 + torch.einsum("pm,pmn->pn", weights, sign)) / 4
