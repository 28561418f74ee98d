"""Statistics of two groups of models, each with an interval over models, the unit of randomness."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.attacks.counted import auc_of_counts, counts_of_values
from lightning_unlearn.attacks.low_fpr import FEWEST_NON_MEMBERS, low_fpr
from lightning_unlearn.attacks.rmia import rmia
from lightning_unlearn.attacks.threshold import auc, roc
from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.functional.permutation import ModelStatistic
from lightning_unlearn.functional.resampling import Interval, bootstrap_interval, jackknife_interval

__all__ = ["compare", "membership", "membership_scores", "pooled_roc"]

# Enough for the ends of an interval to two digits.
DRAWS = 99
# The jackknife leaves a third of the models out, and U-LiRA needs three.
_FEWEST = 4
# Points of a stored curve.
_POINTS = 200


def compare(
    metrics: dict[str, float], name: str, statistic: ModelStatistic, a: Tensor, b: Tensor, source: torch.Generator | None
) -> None:
    """Add a statistic of two groups of models, with its interval where that is asked for and possible.

    Args:
        metrics: Gets NAME, and NAME/low and NAME/high.
        name: The metric.
        statistic: Of two groups.
        a: Margins, (M, N).
        b: Margins, (M', N).
        source: Generator of the interval; None: no interval.
    """
    if source is None or min(len(a), len(b)) < _FEWEST:
        metrics[name] = float(statistic(a, b))
        return
    _put(metrics, name, jackknife_interval(statistic, a, b, DRAWS, generator=source))


def _put(metrics: dict[str, float], name: str, found: Interval, scale: float = 1.0) -> None:
    metrics[name] = scale * found.value
    metrics[f"{name}/low"], metrics[f"{name}/high"] = scale * found.low, scale * found.high


def membership_scores(group: Answers, part: str, references: Answers, count: int) -> Tensor:
    """Offline RMIA scores of every sample under every model of a group.

    Args:
        group: The attacked models; must have answered to `unseen` or `test` too, the population.
        part: Whose samples are attacked; models with other weights, as in `forget/int8`, answered to the population with them.
        references: Models that p(x) is taken from.
        count: How many of them, from the first on.

    Returns:
        (M, N), float64, larger for members.
    """
    _, *suffix = part.split("/")
    population = [name for name in ("/".join((of, *suffix)) for of in ("unseen", "test")) if name in group.margins]

    def log_p(answers: Answers, names: list[str]) -> Tensor:
        # The log-probability of the label is the log-sigmoid of its margin.
        return F.logsigmoid(torch.cat([answers.margins[name] for name in names], dim=1))

    return rmia(
        log_p(group, [part]), log_p(references, [part])[:count], log_p(group, population), log_p(references, population)[:count]
    )


def membership(metrics: dict[str, float], name: str, members: Tensor, others: Tensor, source: torch.Generator | None) -> None:
    """AUC and true-positive rates at 1 % and 0.1 % false positives of pooled scores.

    Args:
        metrics: Gets `NAME/auc`, `NAME/tpr@1fpr` and, with enough non-members, `NAME/tpr@0.1fpr`.
        name: Of the attack.
        members: Scores, (M, N).
        others: Scores of non-members, (M', N').
        source: Generator of the bootstrap over models; None: the AUC alone, without an interval.
    """
    if source is None:
        metrics[f"{name}/auc"] = _pooled(members, others)
        return
    counts = counts_of_values(members, others)
    area, groups = (_pooled, (members, others)) if counts is None else (auc_of_counts, counts)
    found = bootstrap_interval(lambda a, b: torch.tensor(area(a, b)), *groups, DRAWS, generator=source)
    _put(metrics, f"{name}/auc", found)
    for fpr in FEWEST_NON_MEMBERS:
        point = low_fpr(members, others, fpr, DRAWS, source)
        if point is not None:
            _put(metrics, f"{name}/tpr@{100 * fpr:g}fpr", point, scale=100)


def _pooled(members: Tensor, others: Tensor) -> float:
    return auc(members.flatten(), others.flatten())


def pooled_roc(members: Tensor, others: Tensor) -> dict[str, list[float]]:
    """The curve of pooled scores, thinned evenly on a logarithmic axis.

    Args:
        members: Scores, (M, N).
        others: Scores of non-members, (M', N').

    Returns:
        `fpr` and `tpr`, ascending.
    """
    curve = roc(members.flatten(), others.flatten())
    wanted = torch.logspace(math.log10(1 / others.numel()), 0, _POINTS, dtype=torch.float64)
    at: Tensor = (torch.searchsorted(curve.fpr, wanted, right=True) - 1).unique()  # type: ignore[no-untyped-call]  # torch's
    return {"fpr": curve.fpr[at].tolist(), "tpr": curve.tpr[at].tolist()}
