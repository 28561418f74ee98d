"""Add Gaussian noise to weights."""

import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["AddNoise", "GaussianNoise", "add_noise"]


def add_noise(weights: list[Tensor], std: float, source: torch.Generator, relative: bool = True) -> None:
    """`W <- W + std * N(0, 1)` in place.

    Args:
        weights: Tensors to change.
        std: Standard deviation of the noise.
        source: A generator on the CPU, where the noise is drawn, so that every device gets the same.
        relative: Whether `std` is in units of each tensor's root mean square.
    """
    for weight in weights:
        noise = torch.randn(weight.shape, generator=source, dtype=torch.float32).to(weight)
        scale = weight.square().mean().sqrt() if relative else 1.0
        weight.add_(noise * (std * scale))


class AddNoise(WeightEdit):
    """Adds Gaussian noise to the selected weights.

    Args:
        std: Standard deviation of the noise.
        relative: Whether `std` is in units of each tensor's root mean square.

    Runs on `on_fit_start`.
    """

    def __init__(self, std: float, relative: bool = True) -> None:
        self.std = std
        self.relative = relative

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        parameters = dict(stage.classifier.named_parameters())
        add_noise([parameters[n] for n in stage.selected], self.std, generator("gaussian noise"), self.relative)


class GaussianNoise(UnlearningStage):
    """Gaussian noise on weights, one of the ideas of the NeurIPS 2023 unlearning challenge (Triantafillou et al. 2024).

    Forgets nothing in particular: fine-tuning has to follow.

    Args:
        std: Standard deviation of the noise.
        relative: Whether `std` is in units of each tensor's root mean square; this is our choice, so that one value serves
            layers of different scale.
        parameters: What gets noise; None: all parameters.
    """

    view = "none"
    train_mode = False

    def __init__(self, std: float = 0.3, relative: bool = True, parameters: ParameterSelector | None = None) -> None:
        if std <= 0:
            raise ChainError(f"GaussianNoise: std is {std}; needed: above 0.")
        super().__init__(max_epochs=0, parameters=parameters)
        self.std = std
        self.relative = relative

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one weight edit."""
        return [AddNoise(self.std, self.relative)]
