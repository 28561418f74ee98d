"""A callback that edits weights once."""

from abc import ABC, abstractmethod
from typing import Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_unlearn.artifacts import Artifacts

__all__ = ["EditedStage", "WeightEdit"]


class EditedStage(Protocol):
    """What a weight edit uses of its stage.

    Attributes:
        classifier: The network whose weights are edited.
        selected: Names of the parameters that the stage selected.
        artifacts: What earlier stages left.
    """

    classifier: nn.Module
    selected: list[str]
    artifacts: Artifacts


class WeightEdit(Callback, ABC):
    """Edits the classifier's weights once, without gradients, identically on every rank.

    The model is on its device then, and within DDP, whose ranks have received the same weights; an edit that is random must
    be drawn alike on every rank. Override `edit`.
    Runs on `on_fit_start`.
    """

    @abstractmethod
    def edit(self, stage: EditedStage) -> None:
        """Change the weights in place.

        Args:
            stage: The stage whose `classifier`, `selected` and `artifacts` the edit uses.
        """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call `edit` under `no_grad`."""
        with torch.no_grad():
            self.edit(cast(EditedStage, pl_module))
