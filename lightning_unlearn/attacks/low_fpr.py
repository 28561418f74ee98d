"""Rates of true positives at low rates of false positives, for one model or many.

Averages over samples hide a leak of a few. Thresholds never exceed the stated rate, and a rate is measured only
where its quantile rests on five non-members or more.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_unlearn.attacks.counted import counts_of_values, tpr_of_counts
from lightning_unlearn.attacks.threshold import tpr_at_fpr
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.resampling import Interval, bootstrap_interval

__all__ = ["FEWEST_NON_MEMBERS", "clopper_pearson", "low_fpr"]

# By rate: scores of non-members that its measurement needs.
FEWEST_NON_MEMBERS = {0.01: 500, 0.001: 5000}


def low_fpr(
    members: Tensor, non_members: Tensor, fpr: float, draws: int = 999, generator: torch.Generator | None = None
) -> Interval | None:
    """True-positive rate at 1 % or 0.1 % false positives with its 95 % interval.

    Args:
        members: Scores that are larger for members and comparable between samples (RMIA): of one model, (N,), or of
            several models, (A, N).
        non_members: Scores of samples or models that are not, (M,) or (B, M).
        fpr: 0.01 or 0.001.
        draws: Of the bootstrap over models.
        generator: Source of its randomness; the global one where left out.

    Returns:
        The rate of `tpr_at_fpr`, all scores pooled, with an interval: over models by bootstrap, the threshold found again
        in every draw, where both groups have several; otherwise over members by Clopper & Pearson, the threshold taken as
        given. None where there are too few non-members.

    Raises:
        DataError: `fpr` is another rate, or one group is of one model and the other of several.
    """
    if fpr not in FEWEST_NON_MEMBERS:
        raise DataError(f"A false-positive rate of {fpr}; needed: one of {sorted(FEWEST_NON_MEMBERS)}.")
    if members.ndim != non_members.ndim or members.ndim not in (1, 2):
        raise DataError(
            f"Scores of shapes {tuple(members.shape)} and {tuple(non_members.shape)}; needed: (N,) and (M,) of one model, "
            "or (A, N) and (B, M) of several."
        )
    if non_members.numel() < FEWEST_NON_MEMBERS[fpr]:
        return None

    def rate(a: Tensor, b: Tensor) -> Tensor:
        return torch.tensor(tpr_at_fpr(a.flatten(), b.flatten(), fpr).tpr, dtype=torch.float64)

    if members.ndim == 2 and min(len(members), len(non_members)) > 1:
        if (counts := counts_of_values(members, non_members)) is not None:

            def rate_of_counts(a: Tensor, b: Tensor) -> Tensor:
                return torch.tensor(tpr_of_counts(a, b, fpr), dtype=torch.float64)

            return bootstrap_interval(rate_of_counts, *counts, draws, generator=generator)
        return bootstrap_interval(rate, members, non_members, draws, generator=generator)
    tpr, n = float(rate(members, non_members)), members.numel()
    return Interval(tpr, *clopper_pearson(round(tpr * n), n))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share (Clopper & Pearson, 1934): covers at least at its level, whatever the share.

    Args:
        successes: 0 ... n.
        n: Trials, >= 1.
        level: Coverage, in 0 ... 1.

    Returns:
        Lower and upper end.
    """
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _share_where(lambda p: _at_least(successes, n, p) >= tail)
    # At most k successes of share p are at least n - k failures of share 1 - p.
    high = 1.0 if successes == n else 1 - _share_where(lambda q: _at_least(n - successes, n, q) >= tail)
    return low, high


def _share_where(holds: Callable[[float], bool]) -> float:
    """The share from which on a condition holds, by bisection.

    Returns:
        In 0 ... 1, to 2^-50.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X binomial.

    Returns:
        In 0 ... 1.
    """
    i = torch.arange(k, n + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)
    return float((ways + i * math.log(p) + (n - i) * math.log1p(-p)).exp().sum())
