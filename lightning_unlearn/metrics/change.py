"""Whether unlearning did anything at all."""

import math
from collections.abc import Mapping

from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.pairing import check_same_samples, check_same_split
from lightning_unlearn.outputs import Outputs, PartOutputs

__all__ = ["churn", "part_churn", "weight_distance"]


def part_churn(a: PartOutputs, b: PartOutputs) -> float:
    """Share of predictions that differ between two models on one part.

    Args:
        a: One model.
        b: The other, on the same samples.

    Returns:
        0 ... 1.
    """
    check_same_samples(a, b)
    return int((a.predictions != b.predictions).sum()) / len(a)


def churn(a: Outputs, b: Outputs) -> float:
    """Share of predictions that differ between two models over forget, retain and test samples together.

    Args:
        a: One model.
        b: The other, on the same split.

    Returns:
        0 ... 1; 0 against the original says that unlearning was a no-op.
    """
    check_same_split(a, b)
    pairs = ((a.forget, b.forget), (a.retain, b.retain), (a.test, b.test))
    return sum(part_churn(x, y) * len(x) for x, y in pairs) / sum(len(x) for x, _ in pairs)


def weight_distance(weights: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> float:
    """Relative distance ||w - w_0|| / ||w_0|| over all floating-point tensors.

    Args:
        weights: A state dict.
        original: The state dict before unlearning: the same names and shapes.

    Returns:
        >= 0; 0 says that no weight moved, inf that the original weights are all 0.

    Raises:
        DataError: The names or shapes differ.
    """
    ours, theirs = ({name: tuple(t.shape) for name, t in state.items()} for state in (weights, original))
    if ours != theirs:
        differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise DataError(f"Weights of two architectures differ first at {differing[:3]}; needed: one architecture.")
    moved = total = 0.0
    for name, start in original.items():
        if start.is_floating_point():
            old, new = start.detach().cpu().double(), weights[name].detach().cpu().double()
            moved += float((new - old).square().sum())
            total += float(old.square().sum())
    if total == 0:
        return math.inf if moved else 0.0
    return math.sqrt(moved / total)
