"""The same random numbers in a resumed run as in one that was never stopped."""

import os

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["SeedEachStep"]


class SeedEachStep(Callback):
    """Seeds torch before every training step with a function of the run's seed, the step and the rank.

    Dropout and its like then do not depend on what was drawn before, so that a resumed run goes on bit for bit.
    Runs on `on_train_batch_start`.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Seed the step."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed(hash((seed, trainer.current_epoch, batch_idx, trainer.global_rank)) % 2**63)
