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
            `UnlearningStage.mean` weights them by it. 0 means that this is the whole batch.
    """

    input: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    total: int = 0
