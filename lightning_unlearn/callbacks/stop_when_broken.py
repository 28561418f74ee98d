"""Go back to the last good weights when the retained data suffer."""

import logging
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_unlearn.callbacks.looking import check_budget, retain_accuracy, weights_of
from lightning_unlearn.callbacks.weight_edit import EditedStage

__all__ = ["StopWhenBroken"]

log = logging.getLogger(__name__)


class StopWhenBroken(Callback):
    """Stops a stage whose retain accuracy fell too far, and restores the weights of the last epoch within the budget.

    The accuracy is that of a fixed random part of the retained samples, in eval mode.

    Args:
        max_retain_drop: Points of accuracy that may be lost, in 0 ... 100.
        samples: Retained samples that are looked at.

    Runs on `on_fit_start` and `on_train_epoch_end`.
    """

    def __init__(self, max_retain_drop: float = 5.0, samples: int = 500) -> None:
        check_budget("StopWhenBroken", max_retain_drop, samples)
        self.max_retain_drop = max_retain_drop
        self.samples = samples
        self.start = 0.0
        self.good: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the accuracy before the first step."""
        self.start = retain_accuracy(trainer, pl_module, self.samples)
        self.good = weights_of(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights, or restore the last good ones and stop."""
        now = retain_accuracy(trainer, pl_module, self.samples)
        if self.start - now <= self.max_retain_drop:
            self.good = weights_of(pl_module)
            return
        log.warning(
            "Epoch %d: retain accuracy fell from %.1f to %.1f, more than %.1f points. Weights of the epoch before are "
            "restored and the stage ends.", trainer.current_epoch, self.start, now, self.max_retain_drop,
        )  # fmt: skip
        cast(EditedStage, pl_module).classifier.load_state_dict(self.good)
        trainer.should_stop = True
