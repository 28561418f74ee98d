"""Permutation tests over models: are two groups of models told apart by more than their seeds?

The unit of randomness is the model. Samples of one model depend on each other in ways nobody knows; labels of models
can be exchanged all the same, so a test that permutes them holds its level for any statistic, with ties or without.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "DetectableShift",
    "ModelStatistic",
    "PermutationTest",
    "holm",
    "permutation_test",
    "pool",
    "smallest_detectable_shift",
]

# Numbers in the largest tensor of a batch of permutations: small enough to stay in the cache of a processor.
_BATCH = 2**18
# In standard deviations: groups that far apart do not overlap.
_LARGEST_SHIFT = 8.0


class ModelStatistic(ABC):
    """A number that compares two groups of models, computed for many groupings of the same models at once.

    What does not depend on the grouping, such as ranks or bins, is computed once for all permutations.
    """

    @abstractmethod
    def over(self, pooled: Tensor) -> Callable[[Tensor], Tensor]:
        """Prepare for groupings of these models.

        Args:
            pooled: Values of all models, (M, N), float64, finite.

        Returns:
            A function from groupings, (P, M), bool, true where a model is of the first group, to values, (P,), float64.
            All groupings of a call have a first group of the same size.
        """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The value for one pair of groups.

        Args:
            a: The first group, (A, N).
            b: The second, (B, N).

        Returns:
            A scalar, float64.
        """
        pooled, first = pool(a, b)
        return self.over(pooled)(first)[0]


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        value: The statistic for the true labels.
        null_mean: Its mean over permutations: what it reads where models differ by their seeds only.
        null_std: Its standard deviation over permutations.
        p: Share of labellings, the true one among them, that are at least as extreme; in 1 / (permutations + 1) ... 1.
        null: Its values over permutations, (permutations,), float64.
        alternative: Whether large ("greater") or small ("less") values are extreme.
    """

    value: float
    null_mean: float
    null_std: float
    p: float
    null: Tensor
    alternative: Literal["greater", "less"] = "greater"


def pool(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both groups as one, with their labels.

    Args:
        a: The first group, (A, N), any floating type, A >= 1.
        b: The second, (B, N), B >= 1.

    Returns:
        Values, (A + B, N), float64, and labels, (1, A + B), bool, true for the first group.

    Raises:
        ValueError: The shapes are not (A, N) and (B, N) with at least one model and sample, or a value is not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != b.shape[1:] or 0 in (*a.shape, *b.shape):
        raise ValueError(
            f"Groups of shapes {tuple(a.shape)} and {tuple(b.shape)}; needed: (models, samples) each, "
            "at least one model a group, the same samples in both."
        )
    pooled = torch.cat([a.detach().double(), b.detach().double()])
    if not bool(pooled.isfinite().all()):
        raise ValueError(f"{int((~pooled.isfinite()).sum())} values are not finite; a model has diverged: leave it out.")
    return pooled, (torch.arange(len(pooled)) < len(a)).unsqueeze(0)


def permutation_test(
    statistic: ModelStatistic | Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    permutations: int = 999,
    generator: torch.Generator | None = None,
    alternative: Literal["greater", "less"] = "greater",
) -> PermutationTest:
    """Whether the statistic of two groups of models is more extreme than that of models dealt out at random.

    p = (1 + number of permutations at least as extreme) / (1 + permutations), which is valid with any number of
    permutations (Phipson & Smyth, 2010).

    Args:
        statistic: A function (A, N), (B, N) -> scalar, called once a permutation, or a `ModelStatistic`, which is
            given all permutations in batches.
        a: The first group, (A, N), any floating type.
        b: The second, (B, N).
        permutations: How many; 999 resolve p to 0.001.
        generator: Source of randomness; the global one where left out.
        alternative: Whether large or small values speak against equality.

    Returns:
        The test.

    Raises:
        ValueError: There is no permutation, or a group is not as above.
    """
    if permutations < 1:
        raise ValueError(f"{permutations} permutations; needed: at least 1, and 19 for p = 0.05.")
    pooled, first = pool(a, b)
    # In the order of random keys: every subset of A models is equally likely.
    keys = torch.rand(permutations, len(pooled), generator=generator, dtype=torch.float64)
    labels = torch.cat([first, keys.argsort(1) < len(a)])
    if isinstance(statistic, ModelStatistic):
        values_of = statistic.over(pooled)
        size = max(1, _BATCH // pooled.numel())
        values = torch.cat([values_of(some) for some in torch.split(labels, size)])
    else:
        values = torch.stack([statistic(pooled[row], pooled[~row]).double() for row in labels])
    value, null = values[0], values[1:]
    sign = 1.0 if alternative == "greater" else -1.0
    # Sums in another order round differently: what is equal must count as equal.
    slack = 1e-9 * max(1.0, abs(float(value)))
    extreme = int((sign * (null - value) >= -slack).sum())
    return PermutationTest(
        value=float(value),
        null_mean=float(null.mean()),
        null_std=float(null.std(correction=0)),
        p=(1 + extreme) / (1 + permutations),
        null=null,
        alternative=alternative,
    )


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979): all up to 0.05 are jointly right with probability 0.95.

    Args:
        p: P-values of several tests, each in 0 ... 1, however dependent.

    Returns:
        Corrected values in the same order, each in 0 ... 1 and at least as large as its own.
    """
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class DetectableShift:
    """The smallest leak of one kind that a test finds: every value of the first group larger by the same amount.

    Attributes:
        deviations: The amount, in standard deviations that the values of a sample have among models of one group; inf
            where not even 8 deviations are found: too few models or permutations for the level, or no value varies.
        effect: By how much it moves the statistic from its null mean, >= 0, in the unit of the statistic.
    """

    deviations: float
    effect: float


def smallest_detectable_shift(
    statistic: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    test: PermutationTest,
    power: float = 0.8,
    level: float = 0.05,
    draws: int = 32,
    generator: torch.Generator | None = None,
) -> DetectableShift:
    """How large a shift the test finds with the given power, at these models and samples.

    Group means are taken off, models are dealt out at random, and the first group is shifted: an audit of a known leak.
    The test rejects where the statistic passes the 1 - level quantile of its null, which a statistic of mean m and
    deviation s does with the given power where m - z_power s lies on that quantile; the shift where it does is found
    by bisection. The deviation must be that under the shift: it is up to twice the one of the null.

    Args:
        statistic: A function (A, N), (B, N) -> scalar.
        a: The first group, (A, N), A >= 2, any floating type.
        b: The second, (B, N).
        test: The permutation test of this statistic on these groups.
        power: Probability of rejection, in 0 ... 1.
        level: Level of the test, in 0 ... 1.
        draws: Simulated audits for each shift that is tried.
        generator: Source of randomness; the global one where left out.

    Returns:
        The shift.
    """
    sign = 1.0 if test.alternative == "greater" else -1.0
    edge = float((sign * test.null).quantile(1 - level))
    z = NormalDist().inv_cdf(power)
    degrees = max(1, len(a) + len(b) - 2)
    residuals, first = pool(a - a.mean(0), b - b.mean(0))
    deviation = (residuals.square().sum(0) / degrees).sqrt()
    # The least p-value that there is: with 2 and 2 models the true grouping is one of 6.
    least = max(1 / math.comb(first.shape[1], len(a)), 1 / (1 + len(test.null)))
    if least > level or not bool(deviation.any()):
        return DetectableShift(math.inf, math.inf)
    keys = torch.rand(draws, first.shape[1], generator=generator, dtype=torch.float64)
    groupings = keys.argsort(1) < len(a)

    def values(shift: float) -> Tensor:
        moved = [(residuals[row] + shift * deviation, residuals[~row]) for row in groupings]
        return sign * torch.stack([statistic(x, y).double() for x, y in moved])

    def beyond(shift: float) -> float:
        found = values(shift)
        return float(found.mean() - z * found.std()) - edge

    low, high = 0.0, 0.25
    while beyond(high) < 0:
        if high >= _LARGEST_SHIFT:
            return DetectableShift(math.inf, math.inf)
        low, high = high, 2 * high
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) >= 0 else (middle, high)
    return DetectableShift(high, max(0.0, float(values(high).mean()) - sign * test.null_mean))
