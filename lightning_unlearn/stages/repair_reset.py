"""Train weights that were re-initialised, and the others slowly."""

from collections.abc import Sequence
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.fine_tune import FineTune

__all__ = ["RepairReset", "ScaleGradients"]


class ScaleGradients(Callback):
    """Scales gradients where a mask is off; weight decay, which optimisers add to them, is not scaled.

    Args:
        artifact: Name of the artifact with masks by parameter name; parameters without one keep their gradients.
        factor: Multiplies the gradients.

    Runs on `on_train_start`, `on_before_optimizer_step` and `on_train_end`.
    """

    def __init__(self, artifact: str, factor: float) -> None:
        self.artifact = artifact
        self.factor = factor
        self._masks: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the masks on the device."""
        stage = cast(EditedStage, pl_module)
        weights = dict(stage.classifier.named_parameters())
        masks = stage.artifacts[self.artifact]
        self._masks = [(weights[name], mask.to(weights[name].device)) for name, mask in masks.items()]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Scale; the gradients are those over all ranks, and without the scale of mixed precision."""
        for weight, mask in self._masks:
            if weight.grad is not None:
                weight.grad.copy_(torch.where(mask, weight.grad, weight.grad * self.factor))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the weights."""
        self._masks = []


class RepairReset(FineTune):
    """The second half of Kookmin (NeurIPS 2023 challenge, 2nd place): fine-tuning after `ResetByGradient`.

    In kernels that were partly re-initialised, gradients of the kept weights are scaled down. Runs in train mode, as the
    original was trained; forgotten samples touch neither the loss nor BatchNorm.

    Args:
        multipliers: What the learning rate is multiplied with, for each epoch; as many epochs as there are numbers.
        kept: Multiplies gradients of kept weights, in 0 ... 1; 0.1 as published.
        **kwargs: See `CachedStage`.
    """

    requires = ("reset",)

    def __init__(
        self, multipliers: Sequence[float] = (1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3), kept: float = 0.1, **kwargs: object
    ) -> None:
        super().__init__(max_epochs=len(multipliers), schedule="constant", **kwargs)  # type: ignore[arg-type]  # typed in the base
        if not multipliers or min(multipliers) < 0 or not 0 <= kept <= 1:
            raise ChainError(
                f"RepairReset: multipliers are {list(multipliers)} and kept is {kept}; needed: at least one number, none below "
                "0, and 0 to 1 for the kept weights."
            )
        self.multipliers = tuple(multipliers)
        self.kept = kept

    def configure_callbacks(self) -> list[Callback]:
        """The chain: kept weights learn slowly."""
        return [ScaleGradients("reset", self.kept)]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """See `UnlearningStage.configure_optimizers`: one learning rate per epoch."""
        optimizer = self.make_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad])
        # The scheduler asks once more after the last epoch.
        rates = (*self.multipliers, self.multipliers[-1])
        return [optimizer], [LambdaLR(optimizer, rates.__getitem__)]
