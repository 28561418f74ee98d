"""Keep a sparse network sparse."""

from torch import Tensor, nn

from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.stages.pruning import PruningStage

__all__ = ["KeepZeros"]


class KeepZeros(PruningStage):
    """Holds the weights that are zero already: in front of any method, a network that came pruned stays so.

    Args:
        parameters: See `PruningStage`; None: everywhere, in what is frozen, too: a later stage may train it.
    """

    only_looks = True

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `PruningStage.choose`."""
        if self.selector is not None:
            return super().choose(classifier)
        return layer_weights(classifier, [name for name, _ in classifier.named_parameters()], head=False)

    def masks(self) -> dict[str, Tensor]:
        """See `PruningStage.masks`: what is not zero."""
        parameters = dict(self.classifier.named_parameters())
        return {name: parameters[name].detach() != 0 for name in self.selected}
