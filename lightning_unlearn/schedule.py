"""Learning-rate schedules by name, over the steps that a fit really takes."""

from typing import Literal, TypeAlias

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

__all__ = ["Schedule", "with_schedule"]

Schedule: TypeAlias = Literal["constant", "cosine", "one_cycle"]


def with_schedule(
    module: LightningModule, optimizer: Optimizer, schedule: Schedule
) -> OptimizerConfig | OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns for an optimiser with a schedule stepped once a step.

    Args:
        module: The module that is fitted; its Trainer knows the number of steps.
        optimizer: The optimiser; its learning rate is the highest of the schedule.
        schedule: `constant`; `cosine` (to zero); `one_cycle` (torch's OneCycleLR, Smith and Topin 2019: up from a 25th over
            30 % of the steps, down to nearly zero, momentum cycled between 0.95 and 0.85).

    Returns:
        Lightning's configuration.
    """
    if schedule == "constant":
        return {"optimizer": optimizer}
    # A fit of no step still builds its schedule.
    steps = max(1, int(module.trainer.estimated_stepping_batches))
    scheduler: LRScheduler
    if schedule == "cosine":
        scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    else:
        scheduler = OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
