"""Draw the smallest weights anew."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import weight_layers
from lightning_unlearn.functional.pruning import largest
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Redraw", "RedrawSmallest", "redraw_smallest"]


@torch.no_grad()
def redraw_smallest(
    weights: Mapping[str, Tensor], fan_in: Mapping[str, int], share: float, source: torch.Generator
) -> dict[str, Tensor]:
    """Replace the smallest |w| of all tensors together, in place, by draws of U(-sqrt(1 / fan_in), sqrt(1 / fan_in)).

    Args:
        weights: Tensors by name.
        fan_in: Inputs of each tensor's layer, by the same names.
        share: How many, in 0 ... 1.
        source: Where they are drawn, on the CPU: every device gets the same.

    Returns:
        By name, True where a weight is new.
    """
    kept = largest({name: weight.abs() for name, weight in weights.items()}, 1 - share)
    for name, weight in weights.items():
        bound = 1 / math.sqrt(fan_in[name])
        drawn = (2 * torch.rand(weight.shape, generator=source) - 1) * bound
        weight.copy_(torch.where(kept[name], weight, drawn.to(weight)))
    return {name: ~mask for name, mask in kept.items()}


class Redraw(WeightEdit):
    """Draws the smallest of the selected weights anew.

    Args:
        share: How many, in 0 ... 1.

    Runs on `on_fit_start`.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        parameters, fans = dict(stage.classifier.named_parameters()), _fan_in(stage.classifier)
        weights = {name: parameters[name] for name in stage.selected}
        redraw_smallest(weights, fans, self.share, generator("redraw smallest"))


class RedrawSmallest(UnlearningStage):
    """Prunes the smallest weights and draws them anew: from the 4th place of the NeurIPS 2023 challenge.

    |w| is ranked over weights and biases of all convolutions and linear layers together (Triantafillou et al. 2024). At the
    published 99 % hardly anything of the original is left: distillation or fine-tuning has to follow.

    Args:
        share: How many are drawn anew, above 0 and below 1; 0.99 as published.
        parameters: Of which parameters weights and biases are taken; None: all.
    """

    view = "none"
    train_mode = False

    def __init__(self, share: float = 0.99, parameters: ParameterSelector | None = None) -> None:
        if not 0 < share < 1:
            raise ChainError(f"RedrawSmallest: share is {share}; needed: above 0 and below 1, such as 0.99.")
        super().__init__(max_epochs=0, parameters=parameters)
        self.share = share

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: weights and biases of convolutions and linear layers.

        Args:
            classifier: The network.

        Returns:
            Names of parameters, at least one.

        Raises:
            ValueError: There is none among the selected parameters.
        """
        fans = _fan_in(classifier)
        names = [name for name in super().choose(classifier) if name in fans]
        if not names:
            raise ValueError("the selection holds no weight of a convolution or linear layer. Select some.")
        return names

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one weight edit."""
        return [Redraw(self.share)]


def _fan_in(network: nn.Module) -> dict[str, int]:
    """Inputs of the layer of each weight and bias of convolutions and linear layers."""
    parameters, layers = dict(network.named_parameters()), weight_layers(network)
    own = [name for name in parameters if name.rpartition(".")[0] in layers]
    # Of the module: a weight may be shared, or made of other parameters.
    weights = {name: network.get_submodule(name.rpartition(".")[0]).weight for name in own}
    return {name: cast(Tensor, weight)[0].numel() for name, weight in weights.items()}
