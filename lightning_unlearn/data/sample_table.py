"""Rows of samples that are computed once and looked up by sample index."""

from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part

__all__ = ["SampleTable"]


class SampleTable:
    """What a function gives of each sample, such as features or a teacher's logits, on the trainer's device.

    Args:
        samples: Number of samples of the set that indices speak of; rows are there once they were added.
    """

    def __init__(self, samples: int) -> None:
        self.rows = torch.empty(0)
        self._position = torch.full((samples,), -1, dtype=torch.int64)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows of samples that were added.

        Args:
            index: Sample indices, (B,), int64.

        Returns:
            (B, ...).
        """
        return self.rows[self._position[index]]

    def add(
        self,
        forward: Callable[[Batch], Tensor],
        data: UnlearningDataModule,
        part: Part,
        trainer: Trainer,
        index: Tensor | None = None,
        epoch: int | None = None,
    ) -> None:
        """Compute the rows of samples that are not there yet.

        Args:
            forward: Gives one row per sample of a batch, (B, ...); always the same function of a sample.
            data: The shared data.
            part: A part of it; parts of one table are parts of one set.
            trainer: Knows the ranks, the device and the precision.
            index: Samples of the part, (N,), sorted; None: all.
            epoch: The pass of a training as in which images are augmented, one and the same for a table; None: they are not.
        """
        wanted = data.part(part)[1] if index is None else index
        missing = wanted[self._position.cpu()[wanted] < 0]
        if len(missing) == 0:
            return
        found = collect(forward, data.evaluation_loader(part, missing, epoch=epoch), missing, trainer)
        there = len(self.rows)
        self.rows = torch.cat([self.rows, found]) if there else found
        self._position = self._position.to(found.device)
        self._position[missing.to(found.device)] = torch.arange(there, there + len(missing), device=found.device)
