"""Stop at the first number that is not finite."""

from collections.abc import Mapping
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.exceptions import RunError

__all__ = ["GuardFinite"]


class GuardFinite(Callback):
    """Ends the fit at the step whose loss, gradient or weight is not finite, with the last good weights and the batch's name.

    Weights are kept at the beginning of every epoch. Loss and gradient are looked at together before the step is taken, so that
    a bad one never reaches the weights, and the device is waited for once a step.

    Args:
        of_stage: Whether the fitted module is a stage, whose classifier is guarded; else the module itself is.

    Runs on `on_train_start`, `on_train_epoch_start`, `on_train_batch_start`, `on_before_backward`, `on_before_optimizer_step`
    and `on_train_epoch_end`.
    """

    def __init__(self, of_stage: bool = True) -> None:
        self.of_stage = of_stage
        self.good: dict[str, Tensor] = {}
        self.batch_idx = 0
        self.bad_losses = torch.tensor(0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights also where a fit goes on inside an epoch, whose beginning is not announced."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights."""
        state = self._guarded(pl_module).state_dict()
        self.good = {name: value.detach().clone() for name, value in state.items()}
        self.bad_losses = torch.tensor(0.0, device=pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Remember the batch's number."""
        self.batch_idx = batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Count losses that are not finite, on the device."""
        self.bad_losses = self.bad_losses + (~torch.isfinite(loss.detach())).sum()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the losses of all ranks (one that went on alone would wait for the others for ever) and at the gradients.

        With a gradient scaler, which skips bad steps itself, gradients are left to it.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            gradients = []
        finite = {
            "loss": sum_over_ranks(self.bad_losses, trainer) == 0,
            "gradient": torch.isfinite(torch.nn.utils.get_total_norm(gradients)),
        }
        self._check(finite, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the weights."""
        weights = list(self._guarded(pl_module).parameters())
        self._check({"weight": torch.isfinite(torch.nn.utils.get_total_norm(weights))}, trainer, pl_module)

    def _guarded(self, module: LightningModule) -> nn.Module:
        return cast(EditedStage, module).classifier if self.of_stage else module

    def _check(self, finite: Mapping[str, Tensor], trainer: Trainer, stage: LightningModule) -> None:
        told = torch.stack([value.to(stage.device) for value in finite.values()]).tolist()
        bad = [what for what, good in zip(finite, told, strict=True) if not good]
        if not bad:
            return
        self._guarded(stage).load_state_dict(self.good)
        raise RunError(
            f"{type(stage).__name__}: a {bad[0]} is not finite at batch {self.batch_idx} of epoch {trainer.current_epoch}. "
            "The weights of the beginning of this epoch were restored. Lower the learning rate, or look for NaN in the data."
        )
