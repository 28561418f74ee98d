"""Teach wrong labels in the salient weights alone."""

from lightning.pytorch import Callback

from lightning_unlearn.callbacks.keep_mask import KeepMask
from lightning_unlearn.stages.random_label import RandomLabel

__all__ = ["SalientRandomLabel"]


class SalientRandomLabel(RandomLabel):
    """The training of SalUn (Fan et al. 2024, ICLR): random labels, then the retained samples, where a mask is on.

    Wrong labels are drawn anew in every round, as in the public code, which draws the true one too: here, as in the paper's
    text, it never does. All weights outside the mask of `SaliencyMask` stay bit-equal: they are put back after every step, and
    their momentum is cleared, since a gradient of zero stops neither momentum nor weight decay.

    Args:
        rounds: Rounds of two passes; 10 in the paper.
        redraw: See `RandomLabel`.
        **kwargs: See `RandomLabel`; the learning rate is 1.3e-2 in the paper.
    """

    requires = ("saliency",)

    def __init__(self, rounds: int = 10, redraw: bool = True, **kwargs: object) -> None:
        super().__init__(redraw=redraw, rounds=rounds, **kwargs)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: what the mask protects stays as it is."""
        return [KeepMask("saliency")]
