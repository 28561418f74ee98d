"""Learning-rate schedules by name, over the steps that a fit really takes, and which of these are logged."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from lightning_unlearn.exceptions import ConfigError

__all__ = ["Schedule", "build_optimizer", "build_schedule", "with_schedule"]

Schedule: TypeAlias = Literal["constant", "cosine", "one_cycle"]


def build_optimizer(factory: Callable[..., Optimizer], parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Make an optimiser, and say so where it refuses its settings.

    Args:
        factory: Makes it from parameters.
        parameters: What it steps.

    Returns:
        The optimiser.

    Raises:
        ConfigError: A setting is out of its range.
    """
    try:
        return factory(parameters)
    except ValueError as error:
        raise ConfigError(f"The optimizer refuses its settings: {error}. Change them in `optimizer`.") from error


def build_schedule(optimizer: Optimizer, schedule: Schedule, steps: int, floor: float = 0.0) -> LRScheduler | None:
    """A schedule stepped once a step.

    Args:
        optimizer: The optimiser; its learning rate is the highest of the schedule.
        schedule: `constant`; `cosine` (to the floor); `one_cycle` (torch's OneCycleLR, Smith and Topin 2019: up from a
            25th over 30 % of the steps, down to nearly zero, momentum cycled between 0.95 and 0.85).
        steps: Steps of the whole fit.
        floor: Learning rate at which a cosine ends.

    Returns:
        The scheduler; None where the rate is constant.
    """
    if schedule == "constant":
        return None
    # A fit of no step still builds its schedule.
    steps = max(1, steps)
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps, eta_min=floor)
    rates = [group["lr"] for group in optimizer.param_groups]
    # Some optimisers, such as Adagrad, have no momentum to cycle.
    cycled = bool({"momentum", "betas"} & set(optimizer.defaults))
    return OneCycleLR(optimizer, rates, total_steps=steps, cycle_momentum=cycled)


def with_schedule(
    module: LightningModule, optimizer: Optimizer, schedule: Schedule
) -> OptimizerConfig | OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns for an optimiser with a schedule stepped once a step.

    Args:
        module: The module that is fitted; its Trainer knows the number of steps.
        optimizer: The optimiser.
        schedule: See `build_schedule`.

    Returns:
        Lightning's configuration.
    """
    if schedule == "constant":
        return {"optimizer": optimizer}
    scheduler = build_schedule(optimizer, schedule, int(module.trainer.estimated_stepping_batches))
    assert scheduler is not None
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def logs_at(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a step is one that is logged; logging every one costs as much as a small network's step.

    Args:
        trainer: Its `log_every_n_steps` counts; 0 is never.
        batch_idx: Number of the batch in the epoch.

    Returns:
        True at every n-th.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
    return every > 0 and batch_idx % every == 0
