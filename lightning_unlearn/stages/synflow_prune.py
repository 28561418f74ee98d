"""Prune what little flows through, without data."""

from torch import Tensor

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.pruning import synflow
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.pruning import PruneTo

__all__ = ["SynFlowPrune"]


class SynFlowPrune(PruneTo):
    """SynFlow (Tanaka et al. 2020, NeurIPS): prunes in rounds what adds least to the flow of an input of ones.

    Looks at no sample, so its masks tell nothing of forgotten ones; unlike magnitude it cuts a layer off only
    where hardly more weights than layers are left.

    Args:
        sparsity: See `PruneTo`.
        rounds: Rounds of an exponential schedule; 100 in the paper. Each costs one pass of one image.
        parameters: See `PruningStage`.
    """

    def __init__(self, sparsity: float = 0.95, rounds: int = 100, parameters: ParameterSelector | None = None) -> None:
        super().__init__(sparsity, parameters)
        if rounds < 1:
            raise ChainError(f"SynFlowPrune: rounds is {rounds}; needed: at least 1, such as 100.")
        self.rounds = rounds

    def masks(self) -> dict[str, Tensor]:
        """See `PruningStage.masks`."""
        shape = self.data.example(1).shape[1:]
        return synflow(self.classifier, shape, self.selected, self.sparsity, self.rounds)
