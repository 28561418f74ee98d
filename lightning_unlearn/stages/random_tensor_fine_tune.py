"""Fine-tune a few tensors at a time, some of them shaken before."""

from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import parameter_name
from lightning_unlearn.random import generator
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.gaussian_noise import add_noise

__all__ = ["RandomTensorFineTune", "TrainSome"]


class TrainSome(Callback):
    """In some epochs trains a few random tensors and all BatchNorm, and adds noise to some of those few before.

    A tensor that is left alone has no gradient when the optimiser steps, so neither momentum nor weight decay moves it. Draws
    are the same on every rank.

    Args:
        tensors: How many are trained, drawn anew for each epoch.
        noisy: How many of them get noise.
        std: Standard deviation of the noise, absolute.
        first: The first so many epochs train everything.
        last: The last so many do too.

    Runs on `on_train_epoch_start` and `on_before_optimizer_step`.
    """

    def __init__(self, tensors: int, noisy: int, std: float, first: int, last: int) -> None:
        self.tensors = tensors
        self.noisy = noisy
        self.std = std
        self.first = first
        self.last = last
        self.still: list[nn.Parameter] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the tensors of the epoch, and shake some."""
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 0
        self.still = []
        if epoch < self.first or epoch >= epochs - self.last:
            return
        stage = cast(EditedStage, pl_module)
        parameters, always = dict(stage.classifier.named_parameters()), _of_batch_norm(stage.classifier)
        names = [name for name in stage.selected if name not in always]
        source = generator(f"random tensors/{epoch}")
        drawn = [names[i] for i in torch.randperm(len(names), generator=source)[: self.tensors].tolist()]
        self.still = [parameters[name] for name in names if name not in drawn]
        with torch.no_grad():
            add_noise([parameters[name] for name in drawn[: self.noisy]], self.std, source, relative=False)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take the gradients of tensors that are left alone; those of all ranks are already in them."""
        for parameter in self.still:
            parameter.grad = None


class RandomTensorFineTune(FineTune):
    """The repair of the 7th place of the NeurIPS 2023 unlearning challenge (Triantafillou et al. 2024).

    Fine-tuning on the retained samples. Between the first epoch and the last four, which train everything, each epoch trains
    nine random tensors and all BatchNorm, after noise on six of the nine. Runs in train mode.

    Args:
        tensors: Tensors of an epoch, BatchNorm's apart; 9 as published.
        noisy: How many of them get noise; 6 as published.
        std: Standard deviation of the noise, absolute; 0.04 as published.
        first_epochs: Epochs at the beginning that train everything; 1 as published.
        last_epochs: The same at the end; 4 as published.
        max_epochs: Epochs in all; 9 as published.
        **kwargs: See `CachedStage`.
    """

    def __init__(
        self,
        tensors: int = 9,
        noisy: int = 6,
        std: float = 0.04,
        first_epochs: int = 1,
        last_epochs: int = 4,
        max_epochs: int = 9,
        **kwargs: object,
    ) -> None:
        super().__init__(max_epochs=max_epochs, **kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not 0 <= noisy <= tensors or tensors < 1 or not std >= 0 or min(first_epochs, last_epochs) < 0:
            raise ChainError(
                f"RandomTensorFineTune: tensors is {tensors}, noisy {noisy}, std {std}, first_epochs {first_epochs} and "
                f"last_epochs {last_epochs}; needed: at least one tensor, noise on none to all of them, and nothing below 0."
            )
        self.some = (tensors, noisy, std, first_epochs, last_epochs)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: what is trained in each epoch."""
        return [TrainSome(*self.some)]


def _of_batch_norm(network: nn.Module) -> set[str]:
    """Names of the parameters of BatchNorm."""
    return {
        parameter_name(layer, name)
        for layer, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
