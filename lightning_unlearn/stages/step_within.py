"""A step in one go, no longer than the retained samples bear."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_unlearn.callbacks.looking import retain_accuracy, weights_of
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["step_within"]

log = logging.getLogger(__name__)

# A step of 1/128 of the asked one is no step of that kind any more.
_HALVINGS = 7
# Retained samples that are looked at.
_SAMPLES = 500


def step_within(stage: UnlearningStage, step: Mapping[str, Tensor], length: float, max_retain_drop: float) -> float:
    """Add a step to the weights, halved until retain accuracy falls by no more than a budget; the stage warns where it was.

    Retain accuracy is that of a fixed random part of 500.

    Args:
        stage: Within its fit; its classifier is changed.
        step: What is added, by name.
        length: Factor of the step.
        max_retain_drop: Points of accuracy that may be lost, in 0 ... 100; with 100 nobody looks.

    Returns:
        The factor that was taken.

    Raises:
        ChainError: Every step costs too much; the weights are as they were.
    """
    if max_retain_drop >= 100:
        _add(stage, step, length)
        return length
    before, start = weights_of(stage), retain_accuracy(stage.trainer, stage, _SAMPLES)
    for halving in range(_HALVINGS + 1):
        factor = length * 0.5**halving
        _add(stage, step, factor)
        found = retain_accuracy(stage.trainer, stage, _SAMPLES)
        if start - found <= max_retain_drop:
            if halving:
                stage.warning = (
                    f"The step is {factor:g} in place of {length:g}: a longer one costs more than {max_retain_drop:g} points "
                    "of retain accuracy."
                )
                log.warning("%s", stage.warning)
            return factor
        stage.classifier.load_state_dict(before)
    raise ChainError(
        f"{type(stage).__name__}: a step of {length:g}, and every one halved from it down to {factor:g}, costs more than "
        f"{max_retain_drop:g} points of retain accuracy (from {start:.1f} to {found:.1f}), so nothing was forgotten. "
        "Give a smaller alpha, a larger damping, or a larger max_retain_drop."
    )


def _add(stage: UnlearningStage, step: Mapping[str, Tensor], factor: float) -> None:
    with torch.no_grad():
        for name, value in step.items():
            stage.classifier.get_parameter(name).add_(value, alpha=factor)
