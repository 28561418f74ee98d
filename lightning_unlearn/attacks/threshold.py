"""Membership inference by one threshold on a score, exact by sorting.

In this file a score is any number per sample that is larger for members: a true-class confidence, or better
its margin (`functional.divergences.margin`), which orders samples alike and has no ties at 1. A member is a
sample whose score is at or above the threshold. Rates and shares are in 0 ... 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.attacks.draw import attack_sets
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.ranks import share_won

__all__ = [
    "Roc",
    "ThresholdAttack",
    "TprAtFpr",
    "auc",
    "mia_efficacy",
    "roc",
    "threshold_attack",
    "tpr_at_fpr",
]


@dataclass(frozen=True)
class ThresholdAttack:
    """A threshold and how well it separates the samples that it was chosen on.

    Attributes:
        threshold: Scores at or above it are called members; inf calls nobody a member.
        balanced_accuracy: Mean of the share of members and of non-members called right, in 0.5 ... 1.
    """

    threshold: float
    balanced_accuracy: float

    def is_member(self, scores: Tensor) -> Tensor:
        """Apply the threshold.

        Args:
            scores: (N,), any floating type.

        Returns:
            Which are called members, (N,), bool.
        """
        return scores.double() >= self.threshold


@dataclass(frozen=True, eq=False)
class Roc:
    """All operating points of a threshold attack, from nobody to everybody called a member.

    Attributes:
        fpr: Share of non-members called members, (M,), float64, ascending from 0 to 1.
        tpr: Share of members called members, (M,), float64, ascending from 0 to 1.
        thresholds: (M,), float64, strictly descending from inf: the distinct scores.
    """

    fpr: Tensor
    tpr: Tensor
    thresholds: Tensor


@dataclass(frozen=True)
class TprAtFpr:
    """True-positive rate at a bound on the false-positive rate.

    Attributes:
        tpr: Share of members called members.
        fpr: Share of non-members called members: at most the bound that was asked for.
        threshold: The threshold.
    """

    tpr: float
    fpr: float
    threshold: float


def roc(members: Tensor, non_members: Tensor, weights: Tensor | None = None) -> Roc:
    """The operating points of all thresholds; equal scores fall on the same side of each.

    Args:
        members: Scores, (N,), any floating type, not NaN; N >= 1.
        non_members: Scores, (M,); M >= 1.
        weights: How much each non-member counts, (M,), above 0; None: all alike.

    Returns:
        One point for each distinct score, after the point at which nobody is called a member.
    """
    members, non_members = _checked(members, non_members)
    scores, order_ = torch.cat([members, non_members]).sort(descending=True)
    is_member = order_ < len(members)
    # Only the last of a run of equal scores is an operating point.
    last = torch.ones_like(is_member)
    last[:-1] = scores[1:] != scores[:-1]
    weights = torch.ones(len(non_members), dtype=torch.float64) if weights is None else weights.double()
    of_scores = torch.cat([torch.zeros(len(members), dtype=torch.float64), weights])[order_]
    true, false = is_member.cumsum(0)[last], of_scores.cumsum(0)[last]
    start = torch.zeros(1, dtype=torch.float64)
    return Roc(
        fpr=torch.cat([start, false / false[-1]]),
        tpr=torch.cat([start, true.double() / len(members)]),
        thresholds=torch.cat([start + math.inf, scores[last]]),
    )


def threshold_attack(members: Tensor, non_members: Tensor) -> ThresholdAttack:
    """The threshold of maximal balanced accuracy over all real thresholds, in O(n log n).

    Ties: equal scores are called alike, and of several best thresholds the lowest is taken (as the enumeration of Song &
    Mittal, USENIX Security 2021, does), the one that calls most samples members. The threshold is one of the scores themselves,
    or inf.

    Args:
        members: Scores, (N,), any floating type, not NaN; N >= 1.
        non_members: Scores, (M,); M >= 1. The two sizes may differ.

    Returns:
        The threshold, and its balanced accuracy on these samples (optimistic for others).
    """
    curve = roc(members, non_members)
    # In whole numbers, so that equally good thresholds compare equal: N M (tpr - fpr).
    n, m = len(members), len(non_members)
    gain = (curve.tpr * n).round().long() * m - (curve.fpr * m).round().long() * n
    best = len(gain) - 1 - int(gain.flip(0).argmax())
    return ThresholdAttack(float(curve.thresholds[best]), 0.5 + int(gain[best]) / (2 * n * m))


def auc(members: Tensor, non_members: Tensor, weights: Tensor | None = None) -> float:
    """Probability that a member scores above a non-member, ties counted as 1/2, in O(n log n).

    Args:
        members: Scores, (N,), any floating type, not NaN; N >= 1.
        non_members: Scores, (M,); M >= 1.
        weights: See `roc`.

    Returns:
        The area under the ROC curve, in 0 ... 1.
    """
    if weights is not None:
        curve = roc(members, non_members, weights)
        return float(torch.trapezoid(curve.tpr, curve.fpr))
    return share_won(*_checked(members, non_members))


def tpr_at_fpr(members: Tensor, non_members: Tensor, fpr: float, weights: Tensor | None = None) -> TprAtFpr:
    """The largest true-positive rate of a threshold whose false-positive rate is not above `fpr`.

    The nearest rate would do for no one: with 150 non-members, 2 false positives are nearer to 1 % than 1 is,
    and are above it. With fewer than 1 / fpr non-members no false positive is allowed at all.

    Args:
        members: Scores, (N,), any floating type, not NaN; N >= 1.
        non_members: Scores, (M,); M >= 1.
        fpr: The bound, in 0 ... 1.
        weights: See `roc`.

    Returns:
        The rate, and that of false positives that came with it.

    Raises:
        DataError: `fpr` is not in 0 ... 1.
    """
    if not 0 <= fpr <= 1:
        raise DataError(f"A false-positive rate of {fpr}; needed: 0 to 1.")
    curve = roc(members, non_members, weights)
    # Sums of weights are rounded.
    bound = fpr if weights is None else fpr + 1e-12
    at = int((curve.fpr <= bound).sum()) - 1
    return TprAtFpr(float(curve.tpr[at]), float(curve.fpr[at]), float(curve.thresholds[at]))


def mia_efficacy(
    forget: Tensor,
    retain: Tensor,
    non_members: Tensor,
    retain_targets: Tensor,
    *,
    seed: int = 0,
    retain_index: Tensor | None = None,
) -> float:
    """Share of D_f that the best threshold between D_r and test samples calls non-members.

    Neither 0 nor 1 is the aim, but the value of a retrained reference.

    Args:
        forget: Scores of D_f, (n_f,).
        retain: Scores of D_r, (n_r,); as many as there are non-members are drawn from it, class-balanced.
        non_members: Scores of test samples, (n_test,).
        retain_targets: Labels of D_r, (n_r,), int64.
        seed: Seed of the draw.
        retain_index: Sample indices of D_r, (n_r,), int64; positions where left out.

    Returns:
        The share, in 0 ... 1.
    """
    return trained_efficacy(_by_threshold, forget, retain, non_members, retain_targets, seed, retain_index)


def trained_efficacy(
    calls_member: Callable[[Tensor, Tensor, Tensor], Tensor],
    forget: Tensor,
    retain: Tensor,
    non_members: Tensor,
    retain_targets: Tensor,
    seed: int,
    retain_index: Tensor | None,
) -> float:
    """The same for any attack: `calls_member` is a function (members, non-members, scores) -> (N,), bool.

    Returns:
        The share of D_f called non-members, in 0 ... 1.

    Raises:
        DataError: There is no forgotten sample, or D_r has not one label per score.
    """
    if len(retain) != len(retain_targets):
        raise DataError(f"{len(retain)} scores of D_r with {len(retain_targets)} labels; needed: one label per score.")
    if len(forget) == 0:
        raise DataError("No score of a forgotten sample; needed: at least one.")
    sets = attack_sets(retain_targets, len(non_members), seed=seed, retain_index=retain_index)
    member = calls_member(retain[sets.members], non_members[sets.non_members], forget)
    return 1 - int(member.sum()) / len(forget)


def _by_threshold(members: Tensor, non_members: Tensor, scores: Tensor) -> Tensor:
    return threshold_attack(members, non_members).is_member(scores)


def _checked(members: Tensor, non_members: Tensor) -> tuple[Tensor, Tensor]:
    for name, scores in (("member", members), ("non-member", non_members)):
        if scores.ndim != 1 or len(scores) == 0 or bool(scores.isnan().any()):
            raise DataError(
                f"{name} scores of shape {tuple(scores.shape)}, {int(scores.isnan().sum())} of them NaN; "
                "needed: one number per sample, at least one sample."
            )
    return members.detach().double(), non_members.detach().double()
