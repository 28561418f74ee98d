"""KLoM: KL divergence between the margin distributions of unlearned models and of references, sample by sample.

Georgiev et al., "Attribute-to-Delete: Machine Unlearning via Datamodel Matching", 2024. Histograms of few models differ
by chance alone: identical ensembles read 0.3 (median over samples) and 0.7 (95th percentile) with 100 models a side and
3.8 and 5.9 with 16, so no value is read without its null.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lightning_unlearn.functional.permutation import ModelStatistic, pool

__all__ = ["KlomQuantile", "klom"]

# Added to each frequency, so that empty bins have a logarithm.
_FLOOR = 1e-5
# Numbers in a table of bins.
_LARGEST = 2**23


def klom(a: Tensor, b: Tensor, bins: int = 20) -> Tensor:
    """KL(a || b) between histograms of margins over shared bins of equal width that span the range of both.

    Args:
        a: Margins of one group of models, unlearned ones, (A, N), any floating type, finite.
        b: Margins of the other, references, (B, N).
        bins: Number of bins, >= 1.

    Returns:
        Nats, (N,), float64, in 0 ... log(1 + 1e5).
    """
    pooled, first = pool(a, b)
    return _divergences(_one_hot(pooled, bins), first, bins)[0]


class KlomQuantile(ModelStatistic):
    """A quantile over samples of KLoM, in nats.

    Args:
        quantile: In 0 ... 1; 0.5 is the median, 0.95 the tail that the paper reports.
        bins: Number of bins.
    """

    def __init__(self, quantile: float = 0.5, bins: int = 20) -> None:
        self.quantile = quantile
        self.bins = bins

    def over(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """Put the models of each sample into bins.

        Args:
            pooled: Margins, (M, N), float64.

        Returns:
            From groupings, (P, M), bool, to quantiles, (P,), float64.
        """
        members = list(_one_hot(pooled, self.bins))
        return lambda first: _divergences(members, first, self.bins).quantile(self.quantile, dim=1)


def _one_hot(pooled: Tensor, bins: int) -> Iterator[Tensor]:
    """Which bin each margin is in.

    Args:
        pooled: (M, N).
        bins: Number of bins.

    Yields:
        Of some samples each, (M, n * bins), float32, 0 or 1: all at once would take gigabytes at 512 models and 10,000 samples.
    """
    low, high = pooled.min(0).values, pooled.max(0).values
    # The greatest margin belongs to the last bin; where all are equal there is one bin.
    width = torch.where(high > low, high - low, 1.0)
    at = ((pooled - low) / width * bins).long().clamp(0, bins - 1)
    some = torch.split(at, max(1, _LARGEST // (len(pooled) * bins)), 1)
    yield from (torch.nn.functional.one_hot(part, bins).float().flatten(1) for part in some)


def _divergences(members: Iterable[Tensor], first: Tensor, bins: int) -> Tensor:
    def frequencies(group: Tensor, member: Tensor) -> Tensor:
        # Counts of models are exact in single precision.
        counts = (group.float() @ member).double().view(len(group), -1, bins)
        return (counts / group.sum(1).view(-1, 1, 1) + _FLOOR) / (1 + bins * _FLOOR)

    found = []
    for member in members:
        p, q = frequencies(first, member), frequencies(~first, member)
        found.append((p * (p / q).log()).sum(2))
    return torch.cat(found, 1)
