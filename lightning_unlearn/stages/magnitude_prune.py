"""Prune the smallest weights."""

from torch import Tensor

from lightning_unlearn.functional.pruning import largest
from lightning_unlearn.stages.pruning import PruneTo

__all__ = ["MagnitudePrune"]


class MagnitudePrune(PruneTo):
    """One-shot magnitude pruning: the smallest |w| of all layers together become zero (OMP in Jia et al. 2023, NeurIPS).

    Forgets little by itself and costs accuracy; the stages after it train what is left.

    Args:
        sparsity: See `PruneTo`.
        parameters: See `PruningStage`.
    """

    def masks(self) -> dict[str, Tensor]:
        """See `PruningStage.masks`."""
        parameters = dict(self.classifier.named_parameters())
        return largest({name: parameters[name].detach().abs() for name in self.selected}, 1 - self.sparsity)
