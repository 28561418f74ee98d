"""Forgotten against unseen samples: the evidence that needs no reference.

Classes differ in how confident a model is on them, so samples are compared within their class only; classes
count by their number of forgotten samples. Classes of D_f of which no sample is unseen are left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.attacks.threshold import auc
from lightning_unlearn.functional.divergences import jensen_shannon
from lightning_unlearn.outputs import PartOutputs

__all__ = ["Estimate", "class_weights", "forget_against_unseen", "rf_jsd", "shared_classes", "streisand"]

_Z = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: The estimate.
        low: Lower end; NaN where too few samples give none.
        high: Upper end; NaN where too few samples give none.
    """

    value: float
    low: float
    high: float


def shared_classes(forget: PartOutputs, unseen: PartOutputs) -> list[int]:
    """Classes that have samples in both parts.

    Args:
        forget: On D_f.
        unseen: On unseen samples.

    Returns:
        Ascending.
    """
    k = max(forget.num_classes, unseen.num_classes)
    both = (forget.targets.bincount(minlength=k) > 0) & (unseen.targets.bincount(minlength=k) > 0)
    return [int(c) for c in both.nonzero()]


def class_weights(forget: PartOutputs, others: PartOutputs) -> tuple[Tensor, Tensor]:
    """Weights that give other samples the class mix of D_f, without which an attack finds the classes that differ.

    Args:
        forget: On D_f.
        others: On samples that were not trained on.

    Returns:
        Which samples of D_f are of classes that both have, (N,), bool; and the weights of the others, (M,), float64: those of a
        class sum to its share of these samples, and are 0 where D_f has none of it.
    """
    k = max(forget.num_classes, others.num_classes)
    shared = torch.isin(torch.arange(k), torch.tensor(shared_classes(forget, others), dtype=torch.int64))
    counts = forget.targets.bincount(minlength=k).double() * shared
    each = counts / counts.sum() / others.targets.bincount(minlength=k).clamp(min=1)
    return shared[forget.targets], each[others.targets]


def forget_against_unseen(forget: PartOutputs, unseen: PartOutputs) -> Estimate | None:
    """Rank AUC of confidence between D_f and unseen samples, class by class, weighted by forgotten samples.

    Above 0.5 the model is surer of D_f than of samples it never saw: it remembers. Below, it is less sure:
    its forgetting shows. The interval is normal with the variance of Hanley & McNeil (1982) at the pooled
    AUC; at 0.5 that is the variance of the rank test, whatever the distribution of confidence, also in
    classes of one sample.

    Args:
        forget: On D_f.
        unseen: Of the same model on unseen samples.

    Returns:
        The AUC, in 0 ... 1; 0.5 in the interval is the aim. None where the parts share no class.
    """
    groups = _by_class(forget.margins, forget, unseen.margins, unseen)
    if not groups:
        return None
    n = sum(len(x) for x, _ in groups)
    value = sum(len(x) / n * auc(x, y) for x, y in groups)
    # Drawn half a sample towards 0.5: at 0 and 1 the formula has no variance.
    a = (value * n + 0.5) / (n + 1)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = 0.0
    for x, y in groups:
        n_c, m_c = len(x), len(y)
        spread = a * (1 - a) + (n_c - 1) * (q1 - a * a) + (m_c - 1) * (q2 - a * a)
        variance += (n_c / n) ** 2 * spread / (n_c * m_c)
    half = _Z * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def streisand(forget: PartOutputs, unseen: PartOutputs) -> Estimate | None:
    """Mean true-class confidence on D_f minus that on unseen samples of the same classes.

    Negative with an interval below 0: D_f stands out by being *less* certain than samples never seen, which
    tells an attacker what was forgotten. Positive with an interval above 0: it is still remembered.

    Args:
        forget: On D_f.
        unseen: Of the same model on unseen samples.

    Returns:
        The difference, in -1 ... 1, with a normal interval over samples; 0 in the interval is the aim. None
        where the parts share no class; no interval for a single forgotten or unseen sample.
    """
    groups = _by_class(forget.confidence, forget, unseen.confidence, unseen)
    if not groups:
        return None
    differences = torch.cat([x - y.mean() for x, y in groups])
    n = len(differences)
    noise = _within_variance([y for _, y in groups])
    unseen_part = sum((len(x) / n) ** 2 * noise / len(y) for x, y in groups)
    forget_part = float(differences.var()) / n if n > 1 else math.nan
    half = _Z * math.sqrt(forget_part + unseen_part)
    value = float(differences.mean())
    return Estimate(value, value - half, value + half)


def rf_jsd(unlearned_forget: PartOutputs, original_unseen: PartOutputs) -> float | None:
    """RF-JSD: what the unlearned model predicts on D_f against what the original predicts on unseen samples.

    Of each class the mean predicted distribution is taken, the two are compared by Jensen-Shannon divergence,
    and classes count equally. It matches means and not samples, so it is
    no evidence on its own (Spartalis et al., LoTUS, CVPR 2025).

    Args:
        unlearned_forget: Of the unlearned model on D_f.
        original_unseen: Of the original model on unseen samples.

    Returns:
        Nats, 0 ... log 2; 0 is the aim. None where the parts share no class.
    """
    p, q = unlearned_forget.probabilities, original_unseen.probabilities
    values = [
        float(
            jensen_shannon(
                p[unlearned_forget.targets == c].mean(0, keepdim=True).log(),
                q[original_unseen.targets == c].mean(0, keepdim=True).log(),
            )
        )
        for c in shared_classes(unlearned_forget, original_unseen)
    ]
    return sum(values) / len(values) if values else None


def _by_class(
    forget_values: Tensor, forget: PartOutputs, unseen_values: Tensor, unseen: PartOutputs
) -> list[tuple[Tensor, Tensor]]:
    return [(forget_values[forget.targets == c], unseen_values[unseen.targets == c]) for c in shared_classes(forget, unseen)]


def _within_variance(groups: list[Tensor]) -> float:
    """Pooled variance within groups.

    Returns:
        The variance around the group means; around the common mean where every group is one sample, and NaN
        where there is one sample in all.
    """
    degrees = sum(len(group) - 1 for group in groups)
    if degrees > 0:
        return sum(float((group - group.mean()).square().sum()) for group in groups) / degrees
    values = torch.cat(groups)
    return float(values.var()) if len(values) > 1 else math.nan
