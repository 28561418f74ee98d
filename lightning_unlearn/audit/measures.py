"""What an audit tests, by name of the metric: value, interval over models, and what permuted models read."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_unlearn.attacks.rank_auc import MeanRankAuc
from lightning_unlearn.audit.statistics import compare
from lightning_unlearn.functional.permutation import ModelStatistic, PermutationTest, permutation_test
from lightning_unlearn.metrics.forgetting_score import ForgettingScore
from lightning_unlearn.metrics.klom import KlomQuantile

__all__ = ["LEVEL", "MEASURES", "PERMUTATIONS", "Measure", "measure", "permutations_for", "told_apart"]

LEVEL = 0.05
# The smallest p-value is 1 / (1 + this), which must be below that of the second control.
PERMUTATIONS = 1999


class Measure(NamedTuple):
    """A statistic and its test.

    Attributes:
        statistic: Of the margins of two groups of models.
        alternative: Whether large or small values tell the groups apart.
    """

    statistic: ModelStatistic
    alternative: Literal["greater", "less"] = "greater"


MEASURES: Mapping[str, Measure] = MappingProxyType({
    "rank_auc": Measure(MeanRankAuc()),
    "klom/median": Measure(KlomQuantile(0.5)),
    "klom/p95": Measure(KlomQuantile(0.95)),
    "klom/retain_p95": Measure(KlomQuantile(0.95)),
    "klom/test_p95": Measure(KlomQuantile(0.95)),
    "f": Measure(ForgettingScore(), "less"),
})


def measure(
    metrics: dict[str, float],
    name: str,
    a: Tensor,
    b: Tensor,
    permutations: int,
    generator: torch.Generator,
    source: torch.Generator | None = None,
) -> PermutationTest:
    """Add a measure of two groups of models, with its permutation test.

    Args:
        metrics: Gets NAME, NAME/p, NAME/null, NAME/null_sd, and as `compare` does NAME/low and NAME/high.
        name: The metric, a key of `MEASURES`.
        a: Margins of the judged models, (M, N).
        b: Of the references, (M', N).
        permutations: Of the test.
        generator: Of the permutations.
        source: Of the interval; None: no interval.

    Returns:
        The test.
    """
    statistic, alternative = MEASURES[name]
    compare(metrics, name, statistic, a, b, source)
    test = permutation_test(statistic, a, b, permutations, generator, alternative)
    metrics |= {f"{name}/p": test.p, f"{name}/null": test.null_mean, f"{name}/null_sd": test.null_std}
    return test


def permutations_for(tests: int) -> int:
    """How many permutations a p-value needs that is corrected for the number of tests.

    Args:
        tests: How many there are.

    Returns:
        So many that a p-value can be a quarter of the level after correction, at least `PERMUTATIONS`.
    """
    return max(PERMUTATIONS, math.ceil(4 * tests / LEVEL))


def told_apart(p: float) -> bool:
    """The one boundary of all verdicts.

    Args:
        p: P-value, corrected where there are several.

    Returns:
        Whether it is at most 5 %.
    """
    return p <= LEVEL
