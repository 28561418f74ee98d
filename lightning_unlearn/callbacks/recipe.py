"""Callbacks that are part of how a model is trained."""

from abc import abstractmethod

from lightning.pytorch import Callback

__all__ = ["RecipeCallback"]


class RecipeCallback(Callback):
    """A callback that changes what a model is trained to.

    The originals and references of a benchmark are trained with it too, and the bank knows them by its `repr`; stages of
    unlearning and measurements run without it.
    """

    @abstractmethod
    def __repr__(self) -> str:
        """The class with all its settings, such as `MnemonicCodes(mixing=0.1)`."""
