"""Rows of samples that are computed once and looked up by sample index."""

from collections.abc import Callable, Sequence

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
        forward: Gives one row per sample of a batch, (B, ...).
        data: The shared data.
        parts: Parts whose samples are in it; their indices speak of one set.
        trainer: Knows the ranks, the device and the precision.
    """

    def __init__(
        self, forward: Callable[[Batch], Tensor], data: UnlearningDataModule, parts: Sequence[Part], trainer: Trainer
    ) -> None:
        indices = [data.part(part)[1] for part in parts]
        loaders = [data.evaluation_loader(part) for part in parts]
        rows = [collect(forward, loader, index, trainer) for loader, index in zip(loaders, indices, strict=True)]
        position = torch.zeros(len(data.part(parts[0])[0]), dtype=torch.int64)
        position[torch.cat(indices)] = torch.arange(sum(map(len, indices)))
        self.rows = torch.cat(rows)
        self._position = position.to(trainer.strategy.root_device)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows of samples.

        Args:
            index: Sample indices, (B,), int64.

        Returns:
            (B, ...).
        """
        return self.rows[self._position[index]]
