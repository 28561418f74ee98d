"""What a training step receives."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "halves", "joined", "parts_of"]


class Batch(NamedTuple):
    """A batch whose samples know their place in the training set.

    Attributes:
        input: Normalised images, (B, C, H, W), float; (B, 0) where the stage asked for indices only.
        target: Labels, (B,), int64.
        index: Sample indices, (B,), int64: positions in the training set, the same in every view.
        total: Samples in the global batch of which this is one rank's part. The parts of two ranks may differ by a sample;
            `weight` makes up for it. 0 means that this is the whole batch.
        epoch: The pass over the data that the samples belong to, which seeds their augmentation.
    """

    input: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    total: int = 0
    epoch: int = 0

    @property
    def count(self) -> int:  # type: ignore[override]  # hides tuple.count, as above
        """Samples in the global batch."""
        return self.total or len(self.target)

    def weight(self, ranks: int) -> float:
        """This rank's share of the batch, times the number of ranks: 1 but where ranks are uneven.

        Args:
            ranks: Number of ranks.

        Returns:
            What a mean over this part is multiplied with, so that DDP's average over ranks is the mean over the whole batch.
        """
        return len(self.target) * ranks / self.count


def parts_of(batch: Batch | Mapping[str, Batch]) -> tuple[Batch, ...]:
    """The parts of what a step receives.

    Args:
        batch: A batch, or the parts of one by name.

    Returns:
        The batch alone; else the forgotten part and then the retained one, as far as they are there.
    """
    return (batch,) if isinstance(batch, Batch) else tuple(batch[name] for name in ("forget", "retain") if name in batch)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other; a single one is not copied.

    Args:
        tensors: (B_i, ...), at least one.

    Returns:
        (B_1 + B_2 + ..., ...).
    """
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def halves(values: Tensor, batch: Mapping[str, Batch]) -> tuple[Tensor, Tensor]:
    """Rows of the forgotten and of the retained part.

    Args:
        values: (F + R, ...), the forgotten part first.
        batch: The parts that they belong to.

    Returns:
        (F, ...) and (R, ...).
    """
    count = len(batch["forget"].target)
    return values[:count], values[count:]
