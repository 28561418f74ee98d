"""Accuracy of the parts, and which test samples it is measured on when whole classes are forgotten."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.metrics.per_sample import PerSampleMetric
from lightning_unlearn.outputs import Outputs, PartOutputs

__all__ = [
    "Accuracy",
    "MarginMean",
    "UnlearningAccuracy",
    "accuracy_by_class",
    "forgotten_classes",
    "split_test",
]


def forgotten_classes(outputs: Outputs) -> Tensor:
    """Classes of D_f of which no sample is retained.

    Args:
        outputs: Of any model on the split.

    Returns:
        Ascending, (C,), int64; empty where samples and not classes are forgotten.
    """
    k = outputs.forget.num_classes
    forgotten, retained = (part.targets.bincount(minlength=k) for part in (outputs.forget, outputs.retain))
    return ((forgotten > 0) & (retained == 0)).nonzero().squeeze(1)


def split_test(outputs: Outputs) -> tuple[PartOutputs, PartOutputs | None]:
    """The test set in two: the classes that remain, on which TA is measured, and those wholly forgotten.

    Args:
        outputs: Of any model on the split.

    Returns:
        Test samples of the remaining classes, and of the forgotten classes or None where there are none.

    Raises:
        DataError: No test sample is of a remaining class.
    """
    gone = torch.isin(outputs.test.targets, forgotten_classes(outputs))
    if bool(gone.all()):
        raise DataError("Every test sample is of a forgotten class; needed: test samples of the other classes.")
    if not bool(gone.any()):
        return outputs.test, None
    return outputs.test.select(~gone), outputs.test.select(gone)


def accuracy_by_class(part: PartOutputs) -> tuple[Tensor, Tensor]:
    """Samples and correct predictions of each class.

    Args:
        part: Outputs on one part.

    Returns:
        Numbers of samples and of correct predictions, each (K,), int64.
    """
    k = part.num_classes
    return part.targets.bincount(minlength=k), part.targets[part.correct].bincount(minlength=k)


class Accuracy(PerSampleMetric):
    """Accuracy in percent points, 0 ... 100.

    It is `forget/acc`, `retain/acc` or `test/acc`, by what it is fed with. On D_f neither 0 nor 100 is the
    aim but the reference's value, so `higher_is_better` is None.
    """

    higher_is_better: bool | None = None
    scale: ClassVar[float] = 100.0

    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Whether the prediction is right.

        Returns:
            0 or 1, (B,), float64.
        """
        return (logits.argmax(1) == targets).double()


class UnlearningAccuracy(PerSampleMetric):
    """UA = 100 - accuracy on D_f, in percent points; the reference's value is the aim."""

    higher_is_better: bool | None = None
    scale: ClassVar[float] = 100.0

    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Whether the prediction is wrong.

        Returns:
            0 or 1, (B,), float64.
        """
        return (logits.argmax(1) != targets).double()


class MarginMean(PerSampleMetric):
    """Mean margin log p_y - log sum of the others, in nats; on D_f the reference's value is the aim."""

    higher_is_better: bool | None = None

    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """The margin.

        Returns:
            Nats, (B,), float64.
        """
        return margin(logits, targets)
