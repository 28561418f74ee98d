"""Noise where the retained samples do not mind it."""

import torch
from torch import Tensor

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.fisher import Kind
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_fisher

__all__ = ["FisherNoise", "fisher_noise"]


def fisher_noise(weight: Tensor, fisher: Tensor, scale: float, damping: float, source: torch.Generator) -> None:
    """`W <- W + scale * (F + damping)^(-1/4) * N(0, 1)` in place.

    Args:
        weight: A parameter.
        fisher: Diagonal of the Fisher information of the retained samples, the same shape, not negative.
        scale: Size of the noise.
        damping: What keeps the noise finite where the Fisher is zero.
        source: A generator on the CPU, where the noise is drawn, so that every device gets the same.
    """
    noise = torch.randn(weight.shape, generator=source, dtype=torch.float32).to(weight)
    weight.add_(noise * scale * (fisher.to(weight) + damping).pow(-0.25))


class FisherNoise(UnlearningStage):
    """Adds Gaussian noise whose size falls with the Fisher information of the retained samples (Golatkar et al. 2020, CVPR).

    The paper's optimal noise has a standard deviation in proportion to F^(-1/4). The diagonal Fisher is computed sample by
    sample in float32 and eval mode, whatever the precision of the run.

    Artifacts: `fisher`, the mean squared gradient by parameter name.

    Args:
        scale: Size of the noise.
        damping: Added to the Fisher.
        kind: `empirical` (gradient of the given label), `model_mc` (of a drawn label) or `model` (of all labels).
        samples: Retained samples that are used, a random part; None: all.
        parameters: What gets noise; None: all parameters.
    """

    view = "none"
    provides = ("fisher",)
    train_mode = False

    def __init__(
        self,
        scale: float = 1e-3,
        damping: float = 1e-7,
        kind: Kind = "empirical",
        samples: int | None = 2000,
        parameters: ParameterSelector | None = None,
    ) -> None:
        super().__init__(max_epochs=0, parameters=parameters)
        if scale <= 0 or damping <= 0 or (samples is not None and samples < 1):
            raise ChainError(
                f"{type(self).__name__}: scale is {scale}, damping {damping}, samples {samples}; needed: all above 0."
            )
        self.scale = scale
        self.damping = damping
        self.kind: Kind = kind
        self.samples = samples
        self.per_sample = True

    def on_fit_start(self) -> None:
        """Compute the Fisher information on the retained samples, then add the noise."""
        fisher = mean_fisher(self, "retain", self.samples, self.kind, per_sample=self.per_sample)
        self.artifacts["fisher"] = fisher
        source = generator("fisher noise")
        parameters = dict(self.classifier.named_parameters())
        with torch.no_grad():
            for name in self.selected:
                self.perturb(name, parameters[name], fisher[name], source)

    def perturb(self, name: str, weight: Tensor, fisher: Tensor, source: torch.Generator) -> None:
        """Add noise to a parameter, in place.

        Args:
            name: Its name.
            weight: The parameter.
            fisher: Its Fisher information, the same shape.
            source: A generator on the CPU, where the noise is drawn.
        """
        fisher_noise(weight, fisher, self.scale, self.damping, source)
