"""Give new values to the weights on whose gradients forgotten and retained samples agree."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import parameter_name
from lightning_unlearn.functional.masks import share_on
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_gradient

__all__ = ["ResetByGradient", "reset_smallest"]


@torch.no_grad()
def reset_smallest(weight: Tensor, gradient: Tensor, share: float, source: torch.Generator) -> Tensor:
    """Re-initialise the weights with the smallest |gradient| in place: Kaiming normal, by fan-out, for ReLU (He et al. 2015).

    Args:
        weight: Kernel of a convolution, (out, in, ...).
        gradient: The same shape; of equal ones the first count as smaller.
        share: How many, in 0 ... 1, rounded down.
        source: Where new values are drawn, on the CPU: every device gets the same.

    Returns:
        True where a weight is new, the same shape.
    """
    count = int(share * weight.numel())
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[gradient.abs().flatten().argsort(stable=True)[:count]] = True
    mask = mask.view_as(weight)
    new = nn.init.kaiming_normal_(torch.empty(weight.shape), mode="fan_out", nonlinearity="relu", generator=source)
    weight.copy_(torch.where(mask, new.to(weight), weight))
    return mask


class ResetByGradient(UnlearningStage):
    """The first half of Kookmin (NeurIPS 2023 challenge, 2nd place): gradient-based re-initialisation of convolutions.

    g is the gradient of the cross-entropy on as many random retained samples as there are forgotten ones, minus that on the
    forgotten samples; both are means over samples, which orders weights as the published sums over equal batches do. Taken
    in eval mode, so that forgotten samples touch no BatchNorm statistics. Biases and all other layers are kept.

    What was there is lost for retained samples too: `RepairReset` has to follow.

    Artifacts: `reset`, by name of the kernel, True where a weight is new.

    Args:
        share: Weights of each kernel that are re-initialised, those with the smallest |g|, in 0 ... 1; 0.3 as published.
        parameters: Of which parameters kernels of 2-D convolutions are taken; None: all.
    """

    view = "none"
    provides = ("reset",)
    train_mode = False

    def __init__(self, share: float = 0.3, parameters: ParameterSelector | None = None) -> None:
        super().__init__(max_epochs=0, parameters=parameters)
        if not 0 < share <= 1:
            raise ChainError(f"ResetByGradient: share is {share}; needed: above 0 and at most 1.")
        self.share = share

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: kernels of 2-D convolutions only."""
        kernels = {parameter_name(name) for name, m in classifier.named_modules() if isinstance(m, nn.Conv2d)}
        names = [name for name in super().choose(classifier) if name in kernels]
        if not names:
            raise ValueError("no kernel of a 2-D convolution is selected; needed: at least one.")
        return names

    def on_fit_start(self) -> None:
        """Compare the gradients, re-initialise, and leave the masks."""
        retain = mean_gradient(self, "retain", len(self.data.part("forget")[1]))
        forget = mean_gradient(self, "forget")
        source, weights = generator("reset by gradient"), dict(self.classifier.named_parameters())
        self.artifacts["reset"] = {
            name: reset_smallest(weights[name], retain[name] - forget[name], self.share, source) for name in self.selected
        }

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of new weights, by kernel."""
        return {"share of new weights": {name: float(share_on(mask)) for name, mask in self.artifacts["reset"].items()}}
