"""Base of the metrics that are logged during unlearning: a mean of one value per sample, each sample once."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["PerSampleMetric", "each_once", "joined"]


class PerSampleMetric(Metric, ABC):
    """Mean over samples of a value that depends on one sample alone.

    The values are kept with their sample indices and reduced at the end, so the result is that of one process
    on any number of ranks, also where the sampler repeats samples to fill the last batch. Subclasses override
    `per_sample`.
    """

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    scale: ClassVar[float] = 1.0

    value: list[Tensor]
    index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # All states are float64 vectors: a rank that saw no sample then has an empty state that can be
        # gathered. Sample indices are exact in it up to 2 ** 53.
        self.set_dtype(torch.float64)
        self.add_state("value", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")

    @abstractmethod
    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """The value of each sample.

        Args:
            logits: (B, K).
            targets: Labels, (B,), int64.
            index: Sample indices, (B,), int64.

        Returns:
            (B,), float64.
        """

    def update(self, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B, K), any floating type.
            targets: Labels, (B,), int64.
            index: Sample indices, (B,), int64; of a sample that comes again the first value counts.
        """
        self.value.append(self.per_sample(logits.detach(), targets, index).double())
        self.index.append(index.double())

    def compute(self) -> Tensor:
        """The mean over distinct samples.

        Returns:
            A scalar, float64; NaN where no sample was added.
        """
        index, value = each_once(joined(self.index), joined(self.value))
        del index
        return value.mean() * self.scale


def joined(state: list[Tensor] | Tensor) -> Tensor:
    """A state as one vector: a list of batches before it is gathered from the ranks, a tensor after.

    Args:
        state: Batches or a vector.

    Returns:
        The vector, empty where there are no batches.
    """
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, dtype=torch.float64)


def each_once(index: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Rows ordered by sample index, of each index the first.

    Args:
        index: (N,).
        *columns: Each (N,).

    Returns:
        The index and the columns, each (M,), M <= N.
    """
    index, order = index.sort(stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return index[first], *(column[order[first]] for column in columns)
