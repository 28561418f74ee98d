"""What a training step receives."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A batch whose samples know their place in the training set.

    Attributes:
        input: Normalised images, (B, C, H, W), float; (B, 0) where the stage asked for indices only.
        target: Labels, (B,), int64.
        index: Sample indices, (B,), int64: positions in the training set, the same in every view.
        total: Samples in the global batch of which this is one rank's part. The parts of two ranks may differ by a sample;
            `weight` makes up for it. 0 means that this is the whole batch.
    """

    input: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    total: int = 0

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
