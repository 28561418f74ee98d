"""One comparison of two groups of models: every statistic with its null, p-value, interval, power and verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_unlearn.attacks.rank_auc import MeanRankAuc, PooledAuc
from lightning_unlearn.attacks.ulira import MeanUlira
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.functional.permutation import ModelStatistic, holm, permutation_test, smallest_detectable_shift
from lightning_unlearn.functional.resampling import jackknife_interval
from lightning_unlearn.metrics.forgetting_score import ForgettingScore
from lightning_unlearn.metrics.klom import KlomQuantile

__all__ = ["AUDIT", "BENCHMARK", "LEVEL", "STATISTICS", "Comparison", "compare_groups", "corrected"]

LEVEL = 0.05


class Named(NamedTuple):
    """A statistic as it is reported.

    Attributes:
        statistic: How it is computed.
        alternative: Whether large or small values tell the groups apart.
        unit: Of its values: share, percent, nats or score.
    """

    statistic: ModelStatistic
    alternative: Literal["greater", "less"]
    unit: str


# All of margins, but "rmia/auc", which is of scores of `attacks.rmia.rmia`.
STATISTICS: Mapping[str, Named] = MappingProxyType({
    "rank_auc": Named(MeanRankAuc(), "greater", "share"),
    "ulira": Named(MeanUlira(), "greater", "percent"),
    "ulira_rank": Named(MeanUlira("rank"), "greater", "percent"),
    "rmia/auc": Named(PooledAuc(), "greater", "share"),
    "klom/median": Named(KlomQuantile(0.5), "greater", "nats"),
    "klom/p95": Named(KlomQuantile(0.95), "greater", "nats"),
    "forgetting_score": Named(ForgettingScore(), "less", "score"),
})
AUDIT = ("rank_auc", "ulira")
BENCHMARK = (*AUDIT, "klom/median", "klom/p95", "forgetting_score")


@dataclass(frozen=True)
class Comparison:
    """What one statistic says about two groups of models on one stratum of samples.

    Attributes:
        name: The statistic, a key of `STATISTICS`.
        value: Its value.
        null_mean: Its mean where the labels of the models are permuted: its zero.
        null_std: Its standard deviation there.
        p: P-value of the permutation test; the corrected one after `corrected`.
        low: Lower end of the 95 % interval of `value` over models.
        high: Upper end.
        detectable: Smallest shift of all margins of the first group that the test finds with 80 % power at 5 %, in
            standard deviations of a sample's margin among models.
        detectable_effect: What that shift adds to the statistic's null mean, >= 0, to be compared with `effect`.
        models: Models in each group.
        samples: Samples of the stratum.
        permutations: Permutations of the test.
    """

    name: str
    value: float
    null_mean: float
    null_std: float
    p: float
    low: float
    high: float
    detectable: float
    detectable_effect: float
    models: tuple[int, int]
    samples: int
    permutations: int

    @property
    def effect(self) -> float:
        """The value less its null mean, in the unit of the statistic."""
        return self.value - self.null_mean

    @property
    def distinguishable(self) -> bool:
        """Whether p is at most 5 %."""
        return self.p <= LEVEL

    @property
    def verdict(self) -> str:
        """The only two things that a comparison may say; nothing here certifies that a sample was forgotten."""
        if self.distinguishable:
            return f"distinguishable from retraining (p {self._p()}, effect {self.effect:+.3g})"
        return f"not distinguished at this power (smallest detectable shift {self.detectable:.2g} deviations)"

    def row(self) -> dict[str, float | int | str]:
        """For tables and JSON.

        Returns:
            The figures, the verdict, and the number of models as `models_a` and `models_b`.
        """
        row = asdict(self)
        row["models_a"], row["models_b"] = row.pop("models")
        return {**row, "effect": self.effect, "verdict": self.verdict}

    def _p(self) -> str:
        # The least p that the permutations resolve is a bound, not a value.
        least = 1 / (self.permutations + 1)
        return f"<= {least:.3g}" if self.p <= least else f"{self.p:.3g}"


def compare_groups(
    a: Tensor, b: Tensor, statistics: Sequence[str] = AUDIT, *, permutations: int = 1999, seed: int = 0
) -> dict[str, Comparison]:
    """Compare two groups of models on one stratum of samples by several statistics.

    Args:
        a: Margins of the first group, unlearned models, (A, N), any floating type, finite; for "rmia/auc" its scores.
        b: Of the second, on the same samples, (B, N): references, or for "ulira" models that never saw the samples and
            went through the same unlearning of other data.
        statistics: Names out of `STATISTICS`.
        permutations: Of each test; 1,999 resolve p to 0.0005.
        seed: Seed of the permutations and of the intervals; each statistic starts anew from it.

    Returns:
        By name.

    Raises:
        ConfigError: A statistic is unknown.
    """
    unknown = [name for name in statistics if name not in STATISTICS]
    if unknown:
        raise ConfigError(f"Statistics {unknown}; needed: some of {', '.join(STATISTICS)}.")
    found = {}
    for name in statistics:
        statistic, alternative, _ = STATISTICS[name]
        generator = torch.Generator().manual_seed(seed)
        test = permutation_test(statistic, a, b, permutations, generator, alternative)
        interval = jackknife_interval(statistic, a, b, draws=100, generator=generator)
        shift = smallest_detectable_shift(statistic, a, b, test, generator=generator)
        found[name] = Comparison(
            name=name,
            value=test.value,
            null_mean=test.null_mean,
            null_std=test.null_std,
            p=test.p,
            low=interval.low,
            high=interval.high,
            detectable=shift.deviations,
            detectable_effect=shift.effect,
            models=(len(a), len(b)),
            samples=a.shape[1],
            permutations=permutations,
        )
    return found


def corrected(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The same comparisons with p-values corrected for their number (Holm), for all strata of one statement.

    Args:
        comparisons: By stratum, or by stratum and statistic.

    Returns:
        By the same names, in the same order; verdicts follow the corrected values.
    """
    return {
        name: replace(comparison, p=p)
        for (name, comparison), p in zip(comparisons.items(), holm([c.p for c in comparisons.values()]), strict=True)
    }
