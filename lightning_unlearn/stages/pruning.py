"""What pruning stages share."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.functional.masks import share_on
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["PruneTo", "PruningStage", "leave_pruned"]


def leave_pruned(artifacts: Artifacts, kept: Mapping[str, Tensor]) -> None:
    """Leave word of what is zero for good; what an earlier stage pruned stays so.

    Args:
        artifacts: Of the chain; gets `pruned`.
        kept: Boolean masks by parameter name, True where a weight stays.
    """
    pruned = {name: ~mask for name, mask in kept.items()}
    if "pruned" in artifacts:
        for name, before in artifacts["pruned"].items():
            pruned[name] = pruned[name] | before.to(pruned[name].device) if name in pruned else before
    artifacts["pruned"] = pruned


class PruningStage(UnlearningStage):
    """Sets weights to zero, and leaves word of it: all later stages of the chain keep them there.

    Prune-then-X (Jia et al. 2023, NeurIPS) is a pruning stage in front of the stages of X. Override `masks`.

    Pruned are the weights of convolutions and linear layers but the head: of a ResNet its convolutions, as in the paper. The
    zeros are in the weights themselves, so a saved or exported network needs no mask.

    Artifacts: `pruned`, boolean by parameter name, True where a weight is zero for good.

    Args:
        parameters: Where weights may be pruned; None: everywhere.
    """

    view = "none"
    provides = ("pruned",)
    train_mode = False
    prepares = True

    def __init__(self, parameters: ParameterSelector | None = None) -> None:
        super().__init__(max_epochs=0, parameters=parameters)
        self._on: dict[str, float] = {}

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: weights of convolutions and linear layers but the head; see `layer_weights`."""
        return layer_weights(classifier, super().choose(classifier), head=False)

    @abstractmethod
    def masks(self) -> dict[str, Tensor]:
        """What stays.

        Returns:
            For each selected weight a boolean mask of its shape, True where it stays.
        """

    def on_fit_start(self) -> None:
        """Find the masks; `KeepPruned`, a link of every stage, sets what is pruned to zero."""
        masks = self.masks()
        leave_pruned(self.artifacts, masks)
        self._on = {name: float(share_on(mask)) for name, mask in masks.items()}

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of the weights that stay, by parameter."""
        return {"weights_kept": self._on}


class PruneTo(PruningStage):
    """A pruning stage that leaves a given part of the weights.

    Args:
        sparsity: Part of the weights that is pruned, of all layers together; 0.95 in the paper.
        parameters: See `PruningStage`.
    """

    def __init__(self, sparsity: float = 0.95, parameters: ParameterSelector | None = None) -> None:
        if not 0 < sparsity < 1:
            raise ChainError(f"{type(self).__name__}: sparsity is {sparsity}; needed: between 0 and 1, such as 0.95.")
        super().__init__(parameters)
        self.sparsity = sparsity
