"""Whether forgetting survives when the weights are rounded to 8 bits."""

import copy
from collections.abc import Mapping

from torch import nn

from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.functional.quantise import dequantise_weights, quantise_weights
from lightning_unlearn.metrics.forget_unseen import forget_against_unseen
from lightning_unlearn.outputs import PartOutputs

__all__ = ["check_int8"]


def check_int8(fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule) -> dict[str, tuple[float, float]]:
    """Figures of a model, and of the same with matrices and kernels rounded to int8.

    Args:
        fresh: Makes a Trainer.
        model: Gives logits of images; stays as it is.
        data: The data, split.

    Returns:
        Before and after, by metric: `forget/acc`, `unseen/acc`, `retain/acc` and `test/acc` in percent points, and
        `forget_unseen/auc` with its 95 % interval (`/low`, `/high`), 0 ... 1. What there are no samples for is left out.

    Raises:
        CheckpointError: A weight is not finite.
    """
    try:
        state = dequantise_weights(quantise_weights(model.state_dict()))
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    rounded = copy.deepcopy(model)
    rounded.load_state_dict(state)
    before, after = (_figures(collect_outputs(fresh, network, data)) for network in (model, rounded))
    return {name: (before[name], after[name]) for name in before}


def _figures(outputs: Mapping[Part, PartOutputs]) -> dict[str, float]:
    order: tuple[Part, ...] = ("forget", "unseen", "retain", "test")
    figures = {f"{part}/acc": 100 * outputs[part].accuracy for part in order if part in outputs}
    if "forget" in outputs and "unseen" in outputs:
        estimate = forget_against_unseen(outputs["forget"], outputs["unseen"])
        if estimate is not None:
            name = "forget_unseen/auc"
            figures |= {name: estimate.value, f"{name}/low": estimate.low, f"{name}/high": estimate.high}
    return figures
