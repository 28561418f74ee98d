"""Train on what is retained, near the answers of the original."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.distillation import distillation_loss
from lightning_unlearn.stages.fine_tune import FineTune

__all__ = ["DistilOriginal"]


class DistilOriginal(FineTune):
    """Fine-tuning with KL to the original on the retained samples: an idea of the NeurIPS 2023 challenge.

    The loss is CE + w * sum over T of T^2 KL_T(original || p) (Triantafillou et al. 2024). Runs in train mode, as the original
    was trained; neither the network nor its teacher sees forgotten samples. The teacher has the weights that `KeepWeights` left
    before the stage that made the network forget; without it, those that this stage begins with.

    On unseen samples, of which the original says nothing that it learnt by heart, it is the first pass of the 6th place; those
    of classes that are forgotten as a whole are left out. The others count as trained on from then on: the split beside the
    result names them as retained, and nothing is compared with them.

    Args:
        weight: w, 0 or more; 1 is our own choice.
        temperatures: One divergence for each; at T = 1 it has the gradient of cross-entropy with soft labels.
        with_labels: Whether the loss has the cross-entropy with the true labels.
        part: `retain` or `unseen`: what it trains on.
        **kwargs: See `CachedStage`.
    """

    asks_teacher = True

    def __init__(
        self,
        weight: float = 1.0,
        temperatures: Sequence[float] = (1.0,),
        with_labels: bool = True,
        part: Literal["retain", "unseen"] = "retain",
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not weight >= 0:
            raise ChainError(f"DistilOriginal: weight is {weight}; needed: 0 or more.")
        if not temperatures or not min(temperatures) > 0:
            raise ChainError(f"DistilOriginal: temperatures are {list(temperatures)}; needed: at least one, all above 0.")
        self.weight = weight
        self.temperatures = tuple(temperatures)
        self.with_labels = with_labels
        self.part = self.view = part

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; a copy of the network becomes the teacher."""
        self.teacher = Teacher(classifier, artifacts, self.part)
        super().bind(classifier, artifacts)

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`.

        Args:
            classifier: The network.
            data: The data, split.

        Raises:
            ChainError: No unseen sample is of a class that is retained.
        """
        super().check(classifier, data)
        if self.part == "unseen" and len(data.unseen_of_retained_classes) == 0:
            raise ChainError(f"DistilOriginal: no unseen sample is of a class that is retained. {data.unseen_remedy}")

    def before_fit(self, fresh: Callable[..., Trainer], data: UnlearningDataModule) -> None:
        """See `UnlearningStage.before_fit`: what is forgotten as a class is not taught by unseen samples of it."""
        if self.part == "unseen":
            data.serving = replace(data.serving, only=data.unseen_of_retained_classes)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: the teacher."""
        return [self.teacher]

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy and weighted divergences from the original.

        Args:
            batch: Samples of the part.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        logits, teacher = self.logits(batch), self.teacher.logits(batch)
        divergences = torch.stack([distillation_loss(logits, teacher, t).mean() for t in self.temperatures])
        loss = self.weight * divergences.sum()
        return loss + self.loss_of(logits, batch) if self.with_labels else loss
