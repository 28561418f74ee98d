"""Ascend the loss of what is forgotten, within bounds."""

import math

import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor

from lightning_unlearn.callbacks.looking import check_budget
from lightning_unlearn.callbacks.stop_when_broken import StopWhenBroken
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.views import View
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["GradientAscent"]


class GradientAscent(UnlearningStage):
    """Gradient ascent on the forgotten samples (GA in Jia et al. 2023, NeurIPS), bounded.

    The ceiling is on each sample, not on the mean of the batch: once a mean is above it, no sample has a gradient any more.
    When the accuracy on retained samples falls by more than `max_retain_drop` points, the stage stops and goes back to the
    last good weights. Runs in eval mode: BatchNorm statistics of forgotten samples alone would break the network.

    Args:
        ceiling: Cross-entropy above which a sample is left alone; None: that of chance, log K.
        max_retain_drop: Points of retain accuracy that may be lost before the stage is rolled back; None: no limit.
        **kwargs: See `UnlearningStage`.
    """

    view: View = "forget"
    train_mode = False

    def __init__(self, ceiling: float | None = None, max_retain_drop: float | None = 5.0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.ceiling = ceiling
        if max_retain_drop is not None:
            check_budget(type(self).__name__, max_retain_drop)
        self.max_retain_drop = max_retain_drop

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: negative mean cross-entropy, no sample beyond the ceiling."""
        assert isinstance(batch, Batch)
        return -self.bounded(logits, batch).mean()

    def bounded(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of samples, without a gradient where it is above the ceiling.

        Args:
            logits: (B, K).
            batch: The forgotten samples that they belong to.

        Returns:
            (B,).
        """
        ceiling = math.log(self.num_classes) if self.ceiling is None else self.ceiling
        return F.cross_entropy(logits, batch.target, reduction="none").clamp(max=ceiling)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: the budget on retain accuracy, where there is one."""
        return [] if self.max_retain_drop is None else [StopWhenBroken(self.max_retain_drop)]
