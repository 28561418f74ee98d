"""How far targets have to be moved, so that what is learnt lies where it was meant to."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_unlearn.data.collect import sum_over_ranks

__all__ = ["Aim"]

# Log-odds: how far off a sample may be counted, so that a few which are remembered well do not move the others.
_MOST = 2.0


class Aim:
    """A correction of all targets by what became of them: after each pass they move against part of their mean miss.

    A short teaching ends above targets that a memory or the loss of other samples stands against; how far above depends on the
    network and the data. The first passes are far above for another reason, that little is learnt yet: were they corrected, the
    teaching would end below, and fewer passes further below.

    Args:
        gain: Part of the mean miss of a pass by which targets move, 0 ... 1.
        trainer: Knows the ranks and the device.
        begin: How many passes are left alone.

    Attributes:
        lowered: Log-odds by which targets are lowered now, a scalar, float64.
    """

    def __init__(self, gain: float, trainer: Trainer, begin: int = 0) -> None:
        self._gain, self._trainer, self._begin = gain, trainer, begin
        device = trainer.strategy.root_device
        self.lowered = torch.zeros((), dtype=torch.float64, device=device)
        self._missed = torch.zeros(2, dtype=torch.float64, device=device)
        self._pass = 0

    def see(self, miss: Tensor, number: int) -> None:
        """Take note of a batch.

        Args:
            miss: Log-odds of the labels as the network gives them, minus those that were meant, (B,).
            number: The pass that the batch belongs to, the same on every rank.
        """
        if number != self._pass:
            total, count = sum_over_ranks(self._missed, self._trainer)
            if self._pass >= self._begin:
                self.lowered = self.lowered + self._gain * total / count.clamp(min=1)
            self._missed, self._pass = torch.zeros_like(self._missed), number
        near = miss.detach().double().clamp(-_MOST, _MOST)
        self._missed = self._missed + torch.stack([near.sum(), torch.ones_like(near).sum()])
