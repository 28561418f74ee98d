"""Find the weights that the forgotten samples pull at."""

from collections.abc import Mapping

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.masks import share_on
from lightning_unlearn.functional.pruning import largest
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_gradient

__all__ = ["SaliencyMask"]


class SaliencyMask(UnlearningStage):
    """The mask of SalUn (Fan et al. 2024, ICLR): on at the largest |gradient of the loss on the forgotten samples|.

    The gradient is that of the sum over all forgotten samples, in eval mode; tensors are ranked together. Changes no weight:
    a stage such as `SalientRandomLabel` trains where the mask is on.

    Artifacts: `saliency`, boolean by parameter name.

    Args:
        share: Part of the weights that is salient, between 0 and 1; 0.5 in the paper.
        parameters: What is ranked; None: all parameters. A later stage trains all others as if there were no mask.
    """

    view = "none"
    provides = ("saliency",)
    train_mode = False

    def __init__(self, share: float = 0.5, parameters: ParameterSelector | None = None) -> None:
        if not 0 < share < 1:
            raise ChainError(f"SaliencyMask: share is {share}; needed: between 0 and 1, such as 0.5.")
        super().__init__(max_epochs=0, parameters=parameters)
        self.share = share
        self._on: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Compute the gradient, and leave the mask."""
        # The mean has the order of the sum.
        gradient = mean_gradient(self, "forget")
        masks = largest({name: value.abs() for name, value in gradient.items()}, self.share)
        self.artifacts["saliency"] = masks
        self._on = {name: float(share_on(mask)) for name, mask in masks.items()}

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of salient weights, by parameter."""
        return {"mask_on": self._on}
