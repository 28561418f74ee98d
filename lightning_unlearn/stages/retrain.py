"""Retrain from scratch without the forgotten samples: exact, and the price that unlearning must beat."""

import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.classifier import default_optimizer, untrained_copy
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.random import drawn_for
from lightning_unlearn.schedule import Schedule
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Restart", "Retrain"]


class Restart(WeightEdit):
    """Gives the whole network new weights, as its constructor draws them. Runs on `on_fit_start`."""

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        with drawn_for("retrain"):
            stage.classifier.load_state_dict(untrained_copy(stage.classifier).state_dict())


class Retrain(UnlearningStage):
    """Trains anew on the retained samples alone: the reference that other methods are compared with, never a competitor.

    Give it the recipe that the original was trained with. A network that was named in its `Classifier` is drawn as its
    constructor draws it; of any other, each module's `reset_parameters` is called.

    Args:
        max_epochs: Epochs of the recipe.
        optimizer: Optimiser of the recipe.
        schedule: Schedule of the recipe.
        batch_size: Batch size of the recipe; None: the DataModule's.
    """

    view = "retain"
    exact = True

    def __init__(
        self,
        max_epochs: int = 25,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule = "one_cycle",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(max_epochs=max_epochs, optimizer=optimizer, schedule=schedule, batch_size=batch_size)

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: mean cross-entropy."""
        assert isinstance(batch, Batch)
        return F.cross_entropy(logits, batch.target)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: new weights before the first step."""
        return [Restart()]
