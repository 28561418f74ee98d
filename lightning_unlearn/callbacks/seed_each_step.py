"""The same random numbers in a resumed run as in one that was never stopped."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_unlearn.random import run_seed

__all__ = ["SeedEachStep"]


class SeedEachStep(Callback):
    """Seeds torch before every training step with a function of the run's seed, the step and the rank.

    Dropout and its like then do not depend on what was drawn before, so that a resumed run goes on bit for bit.
    Runs on `on_train_batch_start`.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Seed the step."""
        torch.manual_seed(hash((run_seed(), trainer.current_epoch, batch_idx, trainer.global_rank)) % 2**63)
