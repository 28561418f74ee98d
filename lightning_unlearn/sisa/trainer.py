"""A Trainer that knows how ensembles of shards and slices are trained."""

from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import EVAL_DATALOADERS, TRAIN_DATALOADERS

from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.sisa.training import fit_slices

__all__ = ["SlicedTrainer"]


class SlicedTrainer(FreshTrainer):
    """A `FreshTrainer` whose `fit` also trains a `Sisa`."""

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: TRAIN_DATALOADERS | LightningDataModule | None = None,
        val_dataloaders: EVAL_DATALOADERS | None = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Lightning's fit; a `Sisa` is trained slice by slice, each in a fit of a fresh Trainer.

        Args:
            model: The model.
            train_dataloaders: Loaders, or the data; for a `Sisa` the data.
            val_dataloaders: Loaders for validation.
            datamodule: The data.
            ckpt_path: State to go on from; a `Sisa` goes on from the slices that it finds.
            weights_only: See Lightning's Trainer.
        """
        if isinstance(model, Sisa):
            fit_slices(self, model, datamodule or train_dataloaders)
        else:
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
