"""One learnt score per weight, from which masks are made."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_unlearn.functional.masks import l1_of_scores

__all__ = ["MaskScores"]


class MaskScores(nn.ParameterDict):
    """Scores of the weights of a network, all alike in the beginning (Piggyback: Mallya et al. 2018, ECCV).

    Args:
        weights: Weights by parameter name.
        initial: First score of every weight.
    """

    def __init__(self, weights: Mapping[str, Tensor], initial: float) -> None:
        # ParameterDict refuses dots in its keys.
        self._keys_of = {name: name.replace(".", "/") for name in weights}
        super().__init__({self._keys_of[n]: nn.Parameter(torch.full_like(w, initial)) for n, w in weights.items()})

    def by_name(self) -> dict[str, Tensor]:
        """The scores by parameter name.

        Returns:
            Each of its parameter's shape.
        """
        return {name: self[key] for name, key in self._keys_of.items()}

    def on(self, threshold: float) -> dict[str, Tensor]:
        """What is on.

        Args:
            threshold: Score above which a weight is on.

        Returns:
            Boolean masks by parameter name.
        """
        return {name: (self[key] > threshold).detach() for name, key in self._keys_of.items()}

    def l1(self) -> Tensor:
        """The L1 norm of all scores.

        Returns:
            A scalar.
        """
        return l1_of_scores(self.parameters())
