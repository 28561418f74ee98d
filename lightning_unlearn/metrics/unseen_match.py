"""How far what a model says of forgotten samples is from what it says of unseen ones: what settings are chosen by."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lightning_unlearn.metrics.forget_unseen import shared_classes
from lightning_unlearn.outputs import PartOutputs

__all__ = ["Statistic", "distance_to_unseen", "error_gap", "margin_advantage", "within_budget"]

Statistic: TypeAlias = Literal["margins", "error"]


def distance_to_unseen(forget: PartOutputs, unseen: PartOutputs, statistic: Statistic = "margins") -> float | None:
    """`margin_advantage` or `error_gap`.

    Args:
        forget: On D_f.
        unseen: On unseen samples.
        statistic: Which of the two.

    Returns:
        0 ... 1, 0 is the aim; None where the parts share no class.
    """
    return (margin_advantage if statistic == "margins" else error_gap)(forget, unseen)


def margin_advantage(forget: PartOutputs, unseen: PartOutputs) -> float | None:
    """How well the best threshold on the margin tells forgotten from unseen samples: largest difference of the two shares.

    The Kolmogorov-Smirnov distance of the distributions of the margin, either side of the threshold, with unseen samples
    weighted so that each class counts as among the forgotten. A model that never saw the forgotten samples has about
    sqrt(1/n + 1/m) for n forgotten and m unseen samples, not 0.

    Args:
        forget: On D_f.
        unseen: On unseen samples.

    Returns:
        0 ... 1, 0 is the aim; None where the parts share no class.
    """
    weighted = _weights(forget, unseen)
    if weighted is None:
        return None
    values = torch.cat([forget.margins, unseen.margins])
    order = values.argsort(stable=True)
    rises = torch.cat([weighted[0], -weighted[1]])[order].cumsum(0)
    # Between equal values no threshold fits.
    ends = torch.ones_like(rises, dtype=torch.bool)
    ends[:-1] = values[order][1:] > values[order][:-1]
    return float(rises[ends].abs().max().clamp(max=1))


def error_gap(forget: PartOutputs, unseen: PartOutputs) -> float | None:
    """Difference of the error on D_f and on unseen samples of the same classes, as SCRUB's rewinding takes it.

    Args:
        forget: On D_f.
        unseen: On unseen samples; each class counts as among the forgotten.

    Returns:
        0 ... 1, 0 is the aim; None where the parts share no class.
    """
    weighted = _weights(forget, unseen)
    if weighted is None:
        return None
    errors = [(w * (p.logits.argmax(1) != p.targets)).sum() for w, p in zip(weighted, (forget, unseen), strict=True)]
    return float((errors[0] - errors[1]).abs())


def _weights(forget: PartOutputs, unseen: PartOutputs) -> tuple[Tensor, Tensor] | None:
    """Weights of the samples, summing to 1 on both sides, each class alike on both; classes of one side alone have 0."""
    shared = shared_classes(forget, unseen)
    if not shared:
        return None
    k = max(forget.num_classes, unseen.num_classes)
    mine, theirs = (part.targets.bincount(minlength=k).double() for part in (forget, unseen))
    counts = torch.zeros(k, dtype=torch.float64)
    counts[shared] = mine[shared]
    share = counts / counts.sum()
    return (share / mine.clamp(min=1))[forget.targets], (share / theirs.clamp(min=1))[unseen.targets]


def within_budget(retain: list[float], max_drop: float) -> list[bool]:
    """Which candidates keep what the best one knows of the retained samples.

    Args:
        retain: Accuracy of each on retained samples, percent.
        max_drop: Points that may be lost against the best.

    Returns:
        One truth value per candidate.
    """
    return [max(retain) - value <= max_drop for value in retain]
