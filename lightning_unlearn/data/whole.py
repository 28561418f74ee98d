"""The data as originals see them, whatever is to be forgotten."""

import copy

from lightning_unlearn.data.datamodule import UnlearningDataModule

__all__ = ["whole"]


def whole(data: UnlearningDataModule) -> UnlearningDataModule:
    """The same data with nothing to forget: what originals are trained on, whatever the forget rule.

    Args:
        data: The data; they are not changed.

    Returns:
        A copy that shares images and labels.
    """
    other = copy.copy(data)
    other.forget_rule = None
    other._reset_split()
    return other
