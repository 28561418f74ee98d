"""Data as a checkpoint was trained on them, whatever a data set measures by now."""

import copy
import logging
import math
from collections.abc import Sequence

from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import DataError

__all__ = ["normalised_alike", "normalised_as"]

log = logging.getLogger(__name__)

# What a person copies from a line of four digits is the same.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


def normalised_as(dataset: VisionData, saved: SavedSplit | None) -> VisionData:
    """A data set with the normalisation that a model was trained with: measured anew, it moves with every deleted sample.

    Args:
        dataset: The data set, or what this gave for another checkpoint; it is not changed.
        saved: The split beside the model's checkpoint; None: there is none.

    Returns:
        A copy that shares all images; the data set as it was given where nothing else is recorded.

    Raises:
        DataError: The user gave another mean or deviation.
    """
    given = dataset.as_given or dataset
    # Images of other channels are refused where the model is given one.
    if saved is None or len(saved.mean) != len(given.mean):
        return given
    recorded = {"mean": tuple(saved.mean), "std": tuple(saved.std)}
    if recorded == {"mean": dataset.mean, "std": dataset.std}:
        return dataset
    dataset, now = given, {"mean": given.mean, "std": given.std}
    if recorded == now:
        return given
    differing = [name for name in now if not _alike(now[name], recorded[name])]
    for name in differing:
        if name in dataset.given:
            raise DataError(
                f"{name} is {_text(now[name])}, and the checkpoint was trained with {_text(recorded[name])} (split.json beside "
                f"it). Leave {name} out, or give {list(recorded[name])}."
            )
    if differing:
        log.warning(
            "The input is normalised as in the checkpoint's training (split.json beside it): mean %s, deviation %s. The data "
            "that are there now would give %s and %s.",
            *(_text(values) for values in (*recorded.values(), *now.values())),
        )
    other = copy.copy(dataset)
    other.as_given = dataset
    other.mean, other.std = recorded["mean"], recorded["std"]
    return other


def normalised_alike(dataset: VisionData, saved: SavedSplit) -> bool:
    """Whether a model was trained with the normalisation of a data set, as far as a person would see.

    Args:
        dataset: The data set.
        saved: The split beside the model's checkpoint.

    Returns:
        False only where another one is recorded.
    """
    if len(saved.mean) != len(dataset.mean):
        return not saved.mean
    return _alike(dataset.mean, saved.mean) and _alike(dataset.std, saved.std)


def _alike(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(math.isclose(a, b, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) for a, b in pairs)


def _text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
