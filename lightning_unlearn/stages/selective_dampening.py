"""Dampen the weights that matter more for the forgotten samples than for all."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.masks import share_on
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_fisher

__all__ = ["SelectiveDampening", "dampen"]


def dampen(weight: Tensor, forget: Tensor, every: Tensor, alpha: float, dampening: float) -> Tensor:
    """Where I_f > alpha * I_D: `W <- W * min(lambda * I_D / I_f, 1)`, in place.

    Args:
        weight: A parameter.
        forget: I_f, mean squared gradients on the forgotten samples, the same shape.
        every: I_D, the same on all samples.
        alpha: How much more a weight has to matter.
        dampening: lambda.

    Returns:
        Where weights were dampened, boolean, the same shape.
    """
    chosen = forget > alpha * every
    factor = torch.where(chosen, (dampening * every / forget).clamp(max=1), 1)
    weight.mul_(factor.to(weight))
    return chosen


class SelectiveDampening(UnlearningStage):
    """Selective synaptic dampening, SSD (Foster et al. 2024, AAAI): no training, one pass over the samples.

    Importances are diagonals of the empirical Fisher information, in eval mode and float32. Since I_D is over *all* samples,
    n of them, per-sample squares give I_f <= n / n_f * I_D: an alpha of n / n_f or more changes nothing. The paper's 10 (5
    for ViT) was tuned on squares of batch means.

    Args:
        alpha: Weights with I_f > alpha * I_D are dampened.
        dampening: lambda; 1 in the paper.
        samples: How many of all samples I_D is computed on, a random part; None: all, as in the paper.
        per_sample: Squares of per-sample gradients; False: of the gradients of batch means, as the paper's code has it.
        batch_size: Samples of a batch; the result depends on it only without `per_sample`.
        parameters: What may be dampened; None: all parameters.
    """

    view = "none"
    train_mode = False

    def __init__(
        self,
        alpha: float = 10.0,
        dampening: float = 1.0,
        samples: int | None = None,
        per_sample: bool = True,
        batch_size: int = 64,
        parameters: ParameterSelector | None = None,
    ) -> None:
        if not (alpha > 0 and dampening > 0) or (samples is not None and samples < 1):
            raise ChainError(
                f"SelectiveDampening: alpha is {alpha}, dampening {dampening}, samples {samples}; needed: all above 0."
            )
        super().__init__(max_epochs=0, batch_size=batch_size, parameters=parameters)
        self.alpha = alpha
        self.dampening = dampening
        self.samples = samples
        self.per_sample = per_sample
        self._on: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Compute both importances, and dampen."""
        assert self.batch_size is not None
        fisher = partial(mean_fisher, self, per_sample=self.per_sample, batch_size=self.batch_size)
        forget, every = fisher("forget"), fisher("train", self.samples)
        parameters = dict(self.classifier.named_parameters())
        with torch.no_grad():
            for name in self.selected:
                chosen = dampen(parameters[name], forget[name], every[name], self.alpha, self.dampening)
                self._on[name] = float(share_on(chosen))

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of dampened weights, by parameter."""
        return {"dampened": self._on}
