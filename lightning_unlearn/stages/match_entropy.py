"""Fine-tune to be as sure as the original was."""

import math

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.divergences import entropy
from lightning_unlearn.stages.class_weighted_fine_tune import ClassWeightedFineTune

__all__ = ["MatchEntropy"]


class MatchEntropy(ClassWeightedFineTune):
    """The repair of the 4th place of the NeurIPS 2023 challenge (Triantafillou et al. 2024).

    Class-weighted cross-entropy plus the mean of (H(p) - H(original))^2 on the retained samples: the student is as sure of
    each as the original, whichever class it prefers. Runs in train mode. The teacher has the weights that `KeepWeights` left;
    without it, those that this stage begins with.

    Args:
        epochs: Passes over the retained samples, parts of one allowed; 3.2 as published.
        weight: Weight of the squared difference, 0 or more; 1 as published.
        power: See `ClassWeightedFineTune`; 0.1 as published.
        **kwargs: See `CachedStage`.
    """

    asks_teacher = True
    steps_each_batch = True

    def __init__(self, epochs: float = 3.2, weight: float = 1.0, power: float = 0.1, **kwargs: object) -> None:
        if not epochs > 0 or not weight >= 0:
            raise ChainError(f"MatchEntropy: epochs is {epochs} and weight {weight}; needed: above 0, and 0 or more.")
        super().__init__(power=power, max_epochs=math.ceil(epochs), **kwargs)
        self.epochs = epochs
        self.weight = weight

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; a copy of the network becomes the teacher."""
        self.teacher = Teacher(classifier, artifacts, "retain")
        super().bind(classifier, artifacts)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: the teacher."""
        return [self.teacher]

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.length`: as many steps as the passes take."""
        steps = math.ceil(self.epochs * len(data.plan))
        return -1, min(steps, self.max_steps or steps)

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Weighted cross-entropy and squared difference of entropies.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        logits = self.logits(batch)
        difference = entropy(logits) - entropy(self.teacher.logits(batch))
        # In float32 at least: the scale of 16-mixed precision is beyond the largest half.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return self.loss_of(logits, batch) + self.weight * difference.square().mean().to(dtype)
