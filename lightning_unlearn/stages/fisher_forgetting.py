"""Noise as the published Fisher forgetting has it."""

import torch
from torch import Tensor

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import head_name
from lightning_unlearn.functional.fisher import Kind
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.fisher_noise import FisherNoise

__all__ = ["FisherForgetting", "forgetting_variance"]


def forgetting_variance(fisher: Tensor, alpha: float, head: bool) -> Tensor:
    """Variance of the noise: alpha * min(1 / (F + 1e-8), 1e3), with 1e2 for the head.

    Averaged over dimension 1 where there is one, and times 10 for the head and for every tensor of one dimension.

    Args:
        fisher: Diagonal Fisher information of a parameter, not negative.
        alpha: Size of the noise.
        head: Whether the parameter is one of the head's.

    Returns:
        The same shape.
    """
    variance = alpha * (1 / (fisher + 1e-8)).clamp(max=1e2 if head else 1e3)
    if variance.dim() > 1:
        variance = variance.mean(1, keepdim=True).expand_as(fisher)
    return variance * 10 if head or fisher.dim() == 1 else variance


class FisherForgetting(FisherNoise):
    """Fisher forgetting, FF (Golatkar et al. 2020, CVPR), with the clamps of the published code.

    `W <- W + sqrt(variance) * N(0, 1)`, see `forgetting_variance`, from the Fisher information of the retained samples. Where
    whole classes are forgotten, their rows of the head become noise of mean 0 and variance 1e-3. `FisherNoise` is the formula
    of the paper's text.

    Artifacts: `fisher`, the mean squared gradient by parameter name.

    Args:
        alpha: Size of the noise; 1e-6 in the paper of Jia et al. 2023.
        kind: `model`, of all labels, as published: K - 1 backward passes; `model_mc` (of a drawn label) and `empirical` (of
            the given label) take one.
        samples: Retained samples that are used, a random part; None: all, as published.
        per_sample: Squares of per-sample gradients, the definition; False: of the gradients of batch means.
        parameters: What gets noise; None: all parameters.
    """

    def __init__(
        self,
        alpha: float = 1e-6,
        kind: Kind = "model",
        samples: int | None = None,
        per_sample: bool = True,
        parameters: ParameterSelector | None = None,
    ) -> None:
        if not alpha > 0:
            raise ChainError(f"FisherForgetting: alpha is {alpha}; needed: above 0.")
        super().__init__(kind=kind, samples=samples, parameters=parameters)
        self.alpha = alpha
        self.per_sample = per_sample

    def perturb(self, name: str, weight: Tensor, fisher: Tensor, source: torch.Generator) -> None:
        """See `FisherNoise.perturb`."""
        head = name.startswith(f"{head_name(self.classifier)}.")
        variance = forgetting_variance(fisher, self.alpha, head).to(weight)
        if head:
            classes = self.data.forgotten_classes
            # In the published code 1e-4, multiplied by the head's 10 afterwards.
            weight[classes], variance[classes] = 0.0, 1e-3
        noise = torch.randn(weight.shape, generator=source, dtype=torch.float32).to(weight)
        weight.add_(noise * variance.sqrt())
