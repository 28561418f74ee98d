"""Teach wrong labels in the salient weights alone."""

from lightning.pytorch import Callback

from lightning_unlearn.callbacks.keep_mask import KeepMask
from lightning_unlearn.stages.random_label import RandomLabel

__all__ = ["SalientRandomLabel"]


class SalientRandomLabel(RandomLabel):
    """The training of SalUn (Fan et al. 2024, ICLR): random labels, then the retained samples, where a mask is on.

    All weights outside the mask of `SaliencyMask` stay bit-equal: they are put back after every step, and their momentum is
    cleared, since a gradient of zero stops neither momentum nor weight decay.

    Args:
        rounds: Rounds of two passes; 10 in the paper.
        **kwargs: See `RandomLabel`; the learning rate is 1.3e-2 in the paper.
    """

    requires = ("saliency",)

    def __init__(self, rounds: int = 10, **kwargs: object) -> None:
        super().__init__(rounds=rounds, **kwargs)  # type: ignore[arg-type]  # typed in the base class

    def configure_callbacks(self) -> list[Callback]:
        """The chain: what the mask protects stays as it is."""
        return [KeepMask("saliency")]
