"""Interclass confusion: does a model still take two classes for each other whose labels were swapped?

Part of the samples of two classes get each other's label, and are then forgotten. A model that forgot them tells the
classes apart as a retrained one does (Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning",
2022).
"""

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.per_sample import PerSampleMetric
from lightning_unlearn.outputs import PartOutputs

__all__ = ["InterclassConfusion", "interclass_confusion"]


def interclass_confusion(part: PartOutputs, classes: tuple[int, int]) -> float:
    """Share of samples of two classes that are predicted as the other of the two.

    Args:
        part: Outputs on samples with their true labels: the test set, or D_f with the swap undone.
        classes: The two classes.

    Returns:
        Points, 0 ... 100; the aim is the reference's value.

    Raises:
        DataError: The classes are the same, or there is no sample of them.
    """
    _check(classes)
    rows = torch.isin(part.targets, torch.tensor(classes))
    if not bool(rows.any()):
        raise DataError(f"No sample of the classes {classes}; needed: samples of the classes that were swapped.")
    return 100 * float(_taken_for_the_other(part.predictions[rows], part.targets[rows], classes).double().mean())


class InterclassConfusion(PerSampleMetric):
    """The same as a metric that can be logged; samples of other classes are left out.

    Args:
        classes: The two classes whose labels were swapped.
    """

    higher_is_better: bool | None = None
    scale = 100.0

    def __init__(self, classes: tuple[int, int]) -> None:
        super().__init__()
        _check(classes)
        self.classes = (int(classes[0]), int(classes[1]))

    def update(self, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Add the samples of a batch that are of the two classes.

        Args:
            logits: (B, K), any floating type.
            targets: True labels, (B,), int64.
            index: Sample indices, (B,), int64.
        """
        rows = torch.isin(targets, targets.new_tensor(self.classes))
        super().update(logits[rows], targets[rows], index[rows])

    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """Whether the prediction is the other of the two classes.

        Returns:
            0 or 1, (B,), float64.
        """
        return _taken_for_the_other(logits.argmax(1), targets, self.classes).double()


def _taken_for_the_other(predictions: Tensor, targets: Tensor, classes: tuple[int, int]) -> Tensor:
    return predictions == sum(classes) - targets


def _check(classes: tuple[int, int]) -> None:
    if len(classes) != 2 or classes[0] == classes[1]:
        raise DataError(f"Classes {classes}; needed: two different classes.")
