"""Keep a sparse network sparse."""

from torch import Tensor

from lightning_unlearn.stages.pruning import PruningStage

__all__ = ["KeepZeros"]


class KeepZeros(PruningStage):
    """Holds the weights that are zero already: in front of any method, a network that came pruned stays so.

    Args:
        parameters: See `PruningStage`.
    """

    def masks(self) -> dict[str, Tensor]:
        """See `PruningStage.masks`: what is not zero."""
        parameters = dict(self.classifier.named_parameters())
        return {name: parameters[name].detach() != 0 for name in self.selected}
