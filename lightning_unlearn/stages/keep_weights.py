"""Keep the weights as they are for later stages."""

from lightning.pytorch import Callback

from lightning_unlearn.callbacks.teacher import KeepOriginal
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["KeepWeights"]


class KeepWeights(UnlearningStage):
    """Leaves the weights as they are now, for teachers of stages that come after others have changed them.

    Artifacts: `original`, the state of the network by name.
    """

    view = "none"
    provides = ("original",)
    train_mode = False
    only_looks = True

    def __init__(self) -> None:
        super().__init__(max_epochs=0)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one edit that edits nothing."""
        return [KeepOriginal()]
