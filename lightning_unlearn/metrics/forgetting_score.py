"""The forgetting score of the NeurIPS 2023 unlearning competition (Triantafillou et al., 2024).

For each forgotten sample, attacks on the margins of unlearned and retrained models estimate an epsilon, which is given
points; the score F is their mean. The estimate is a maximum over many attacks, so F of a *perfect* unlearner is not 1
but about 0.17 at 128 models and 0.21 at 512: read F / F_null, never F alone, with the null of exactly these numbers of
models (labels permuted): that of other numbers says nothing.

The attacks: one threshold anywhere, and two thresholds at any two of 20 quantiles of the margins of all models, with
either side or the inside called unlearned. Two thresholds anywhere would find single models by chance (F of a perfect
unlearner 0.06 at 128 models). Published programs limit them too, in another way: to intervals as wide as all models of
a group, give or take two logits, with which F of a perfect unlearner is 0.19 at 128 and at 512 models.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.permutation import ModelStatistic, pool
from lightning_unlearn.functional.ranks import tie_starts

__all__ = ["ForgettingScore", "epsilons", "final_score", "forgetting_score", "points"]

_QUANTILES = 20
_BIN, _BINS = 0.5, 13


def epsilons(a: Tensor, b: Tensor) -> Tensor:
    """The largest epsilon that an attack shows for each sample (delta = 0).

    An attack that calls a share FPR of retrained models unlearned and a share FNR of unlearned models retrained shows
    that no epsilon below log((1 - FPR) / FNR) and log((1 - FNR) / FPR) holds. Attacks where one of the two rates is 0
    are left out, as in the paper, since a rate of 0 among few models says little; where both are 0 epsilon is inf.

    Args:
        a: Margins of unlearned models, (A, N), any floating type, finite.
        b: Margins of retrained models, (B, N).

    Returns:
        (N,), float64, >= 0; inf where a threshold or two separate the groups. Symmetric in the groups.
    """
    pooled, first = pool(a, b)
    return _epsilons(_Sweep(pooled), first)[0]


def points(epsilon: Tensor) -> Tensor:
    """Points 2 / 2^bin, bins of width 0.5 counted from 1, at most 13.

    Args:
        epsilon: Any shape, >= 0, may be inf.

    Returns:
        The same shape, float64, 1 for epsilon below 0.5 ... 2^-12 from 6 on.
    """
    return torch.exp2(-(epsilon.double() / _BIN).floor().clamp(max=_BINS - 1))


def forgetting_score(epsilon: Tensor) -> float:
    """F, the mean of the points.

    Args:
        epsilon: Of each forgotten sample, (N,).

    Returns:
        In 0 ... 1; what is reached by a perfect unlearner depends on the number of models.
    """
    return float(points(epsilon).mean())


def final_score(f: float, retain: tuple[float, float], test: tuple[float, float]) -> float:
    """The competition's score, F * RA_u / RA_r * TA_u / TA_r.

    Args:
        f: The forgetting score.
        retain: Mean retain accuracy of unlearned and of retrained models, in any one unit.
        test: Mean test accuracy of unlearned and of retrained models.

    Returns:
        >= 0.

    Raises:
        DataError: A retrained accuracy is 0.
    """
    if retain[1] <= 0 or test[1] <= 0:
        raise DataError(f"Retrained models with accuracies {retain[1]} and {test[1]}; needed: above 0.")
    return f * retain[0] / retain[1] * test[0] / test[1]


class ForgettingScore(ModelStatistic):
    """F of two groups of models; small where they are told apart (test with alternative "less").

    On few samples it takes few values, and ties make its test reject less often than it says: 2.7 % for 5 % on 11 samples.
    """

    def over(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """Sort the models of each sample.

        Args:
            pooled: Margins, (M, N), float64.

        Returns:
            From groupings, (P, M), bool, to scores, (P,), float64.
        """
        sweep = _Sweep(pooled)
        return lambda first: points(_epsilons(sweep, first)).mean(1)


class _Sweep:
    """What thresholds on each sample enclose, for any grouping of the models.

    Attributes:
        order: Models by ascending margin, (N, M), int64.
        single: For each threshold how many models are below it, (N, M + 1), int64.
        low: For each pair of quantiles how many models are below the lower one, (N, pairs), int64.
        high: How many are below the upper one.
    """

    def __init__(self, pooled: Tensor) -> None:
        ordered, self.order = pooled.T.sort(-1)
        self.single = tie_starts(ordered.contiguous())
        m = len(pooled)
        places = torch.tensor(sorted({round(k * m / _QUANTILES) for k in range(_QUANTILES + 1)}))
        i, j = torch.triu_indices(len(places), len(places), 1)
        at = self.single[:, places]
        self.low, self.high = at[:, i], at[:, j]


def _epsilons(sweep: _Sweep, first: Tensor) -> Tensor:
    a = int(first[0].sum())
    b = first.shape[1] - a
    # A region with u unlearned and r retrained models has the code u (b + 1) + r: codes of nested regions subtract.
    codes = torch.where(first, b + 1, 1)[:, sweep.order].cumsum(2)
    below = torch.nn.functional.pad(codes, (1, 0))

    def at(places: Tensor) -> Tensor:
        return below.gather(2, places.expand(len(first), *places.shape))

    table = _table(a, b)
    one = table[at(sweep.single)].amax(2)
    return torch.maximum(one, table[at(sweep.high) - at(sweep.low)].amax(2))


def _table(a: int, b: int) -> Tensor:
    """Epsilon shown by a region, by its code.

    Args:
        a: Unlearned models.
        b: Retrained models.

    Returns:
        ((a + 1) (b + 1),), float64.
    """
    u = torch.arange(a + 1, dtype=torch.float64).unsqueeze(1) / a
    r = torch.arange(b + 1, dtype=torch.float64).unsqueeze(0) / b
    # Inside called unlearned: FPR = r, FNR = 1 - u. Inside called retrained: FPR = 1 - r, FNR = u. A rate of 0 leaves
    # its attack out, also where the other gives a number.
    inside = torch.maximum((u / r).log(), ((1 - r) / (1 - u)).log())
    outside = torch.maximum((r / u).log(), ((1 - u) / (1 - r)).log())
    zero = torch.zeros(a + 1, b + 1, dtype=torch.float64)
    shown = torch.maximum(
        torch.where((r > 0) & (u < 1), inside, zero),
        torch.where((u > 0) & (r < 1), outside, zero),
    ).clamp_min(0)
    shown[a, 0] = shown[0, b] = math.inf
    return shown.flatten()
