"""Hold protected weights where they are while the others are trained."""

from collections.abc import Mapping
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.exceptions import ChainError

__all__ = ["KeepMask", "restore"]


@torch.no_grad()
def restore(parameter: Tensor, mask: Tensor, values: Tensor, optimizer: Optimizer) -> None:
    """Put back what an optimiser's step did to protected weights: their values bit by bit, and their momentum to zero.

    Args:
        parameter: A weight of any shape.
        mask: True where it is trained, False where it is protected; the same shape.
        values: What the protected weights were before, the same shape.
        optimizer: Every tensor of its state that has the parameter's shape (momentum, squared gradients) is cleared.
    """
    parameter.copy_(torch.where(mask, parameter, values))
    for state in optimizer.state.get(parameter, {}).values():
        if isinstance(state, Tensor) and state.shape == parameter.shape:
            # Not a product: an infinite entry would become NaN.
            state.masked_fill_(~mask, 0)


class KeepMask(Callback):
    """Trains only where masks are on; all other weights of the masked parameters keep their values, bit for bit.

    A gradient of zero does not do that: momentum and weight decay move a weight without one. So the weights are put back
    after every step of every optimiser, and their momentum is cleared. The values are those that the fit begins with, after
    the weight edits of the chain: weights that pruning set to zero stay zero.

    Args:
        masks: Boolean tensors by parameter name, True where a weight is trained; parameters without one are trained as a
            whole. Or the name of an artifact that holds them, read when training starts.

    Runs on `on_train_start` and `on_train_end`.
    """

    def __init__(self, masks: Mapping[str, Tensor] | str = "mask") -> None:
        self.masks = masks
        self._handles: list[RemovableHandle] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the values, and follow the optimisers.

        Raises:
            ChainError: A mask names no parameter, or has another shape.
        """
        stage = cast(EditedStage, pl_module)
        masks = stage.artifacts[self.masks] if isinstance(self.masks, str) else self.masks
        own = dict(stage.classifier.named_parameters())
        for name, mask in masks.items():
            if name not in own or own[name].shape != mask.shape:
                shape = tuple(own[name].shape) if name in own else "no parameter"
                raise ChainError(
                    f"KeepMask: the mask of {name!r} has shape {tuple(mask.shape)}; the network has {shape} there."
                )
        kept = {own[name]: (mask.to(own[name].device, torch.bool), own[name].detach().clone()) for name, mask in masks.items()}

        def after_step(optimizer: Optimizer, *_: object) -> None:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter in kept:
                        restore(cast(nn.Parameter, parameter), *kept[parameter], optimizer)

        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the optimisers, and of the values."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
