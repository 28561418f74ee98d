"""Shrink the weights that the forgotten samples use."""

import warnings
from collections.abc import Mapping, Sequence

from lightning.pytorch import Callback
from torch import Tensor

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.masks import decay
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["DecayNorm", "NormDecay", "decay_norm"]


def decay_norm(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, factor: float) -> None:
    """`W <- W * factor` in place, where the mask is on; everywhere without masks.

    Args:
        weights: Parameters by name; with masks, those without one stay as they are.
        masks: Boolean tensors by parameter name, each of its parameter's shape.
        factor: Between 0 and 1 (eta).
    """
    chosen = list(weights) if masks is None else [name for name in weights if name in masks]
    on: Sequence[Tensor] | None = None
    if masks is not None:
        on = [masks[name].to(weights[name].device) for name in chosen]
    decay([weights[name] for name in chosen], on, factor)


class DecayNorm(WeightEdit):
    """Multiplies the selected weights by a factor, where the artifact `mask` is on or everywhere without one.

    Args:
        factor: Between 0 and 1.
        use_mask: None: where there is a mask; True or False: with or without it.

    Runs on `on_fit_start`.
    """

    def __init__(self, factor: float, use_mask: bool | None = None) -> None:
        self.factor = factor
        self.use_mask = use_mask

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        parameters = dict(stage.classifier.named_parameters())
        masked = "mask" in stage.artifacts if self.use_mask is None else self.use_mask
        masks = stage.artifacts["mask"] if masked else None
        if masks is not None and not set(stage.selected) & set(masks):
            raise ChainError(
                f"NormDecay: the mask is of {sorted(masks)[0]!r} and the like, and none of them is selected "
                f"({stage.selected[0]!r} and the like). Give MaskLearning and NormDecay the same `parameters`."
            )
        decay_norm({name: parameters[name] for name in stage.selected}, masks, self.factor)


class NormDecay(UnlearningStage):
    """Shrinks weights without destroying them: the second step of selective destructive forgetting.

    `W <- W * factor` where the mask of `MaskLearning` is on (Murakami, Shibata and Yamauchi); without a mask, all selected
    parameters shrink. Decay, not re-initialisation: the network keeps what it can repair quickly. No data, no gradient.

    Args:
        factor: Share of the weights that stays (eta), between 0 and 1. 0 is pruning, which the source does not do.
        use_mask: None: the artifact `mask` where there is one; True: it is required; False: it is ignored.
        parameters: What shrinks; None: the last stage.
    """

    view = "none"
    train_mode = False

    def __init__(
        self,
        factor: float = 0.5,
        use_mask: bool | None = None,
        parameters: ParameterSelector | None = None,
    ) -> None:
        if not 0 <= factor < 1:
            raise ChainError(f"NormDecay: factor is {factor}; needed: 0 < factor < 1. A factor of 1 changes nothing.")
        if factor == 0:
            warnings.warn("NormDecay with factor 0 prunes; the source decays with a factor above 0.", stacklevel=2)
        super().__init__(max_epochs=0, parameters=parameters or ParameterSelector(parts=["last_stage"]))
        self.factor = factor
        self.use_mask = use_mask
        if use_mask:
            self.requires = ("mask",)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one weight edit."""
        return [DecayNorm(self.factor, self.use_mask)]
