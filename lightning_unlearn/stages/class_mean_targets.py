"""Take the mean answer to unseen samples of a class as the target of its forgotten ones."""

import logging

import torch
from torch import nn

from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["ClassMeanTargets"]

log = logging.getLogger(__name__)


class ClassMeanTargets(UnlearningStage):
    """The targets of ReGUn (Mirlach, Laguna and Vogt 2026): how the original answers held-out samples of the same class.

    The target of a forgotten sample is the mean softmax of the network, before it forgets, over the unseen samples of its
    class. The paper pools the classes of a batch, drawn in its proportions; a mean per class tells each sample more.
    A class without unseen samples gets the mean over all of them, and a warning.
    `ImitateUnseen` teaches the targets. In eval mode; the network is not changed.

    Artifacts: `targets`, as those of `EstimateUnseen`.
    """

    view = "none"
    provides = ("targets",)
    train_mode = False
    only_looks = True

    def __init__(self) -> None:
        super().__init__(max_epochs=0)

    @property
    def compares_with_unseen(self) -> bool:
        """See `UnlearningStage.compares_with_unseen`: always."""
        return True

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`.

        Args:
            classifier: The network.
            data: The data, split.

        Raises:
            ChainError: There are no unseen samples.
        """
        super().check(classifier, data)
        if len(data.part("unseen")[1]) == 0:
            raise ChainError(f"ClassMeanTargets: there are no unseen samples. {data.unseen_remedy}")

    def on_fit_start(self) -> None:
        """Average, and leave the targets."""
        samples, index = self.data.part("forget")
        others, unseen = self.data.part("unseen")
        labels, loader = others.targets[unseen], self.data.evaluation_loader("unseen")
        answers = collect(lambda b: self.classifier(b.input).float().softmax(1), loader, unseen, self.trainer).cpu()
        counts = labels.bincount(minlength=self.num_classes)[:, None]
        sums = torch.zeros(self.num_classes, self.num_classes).index_add(0, labels, answers)
        means = torch.where(counts > 0, sums / counts.clamp(min=1), answers.mean(0))
        missing = int((counts[samples.targets[index].unique()] == 0).sum())  # type: ignore[no-untyped-call]  # in torch
        if missing:
            log.warning("%d forgotten classes have no unseen samples: their targets are the mean over all others'.", missing)
        self.artifacts["targets"] = {
            "index": index,
            "probabilities": means[samples.targets[index]],
            "class_gone": torch.zeros(len(index), dtype=torch.bool),
        }
