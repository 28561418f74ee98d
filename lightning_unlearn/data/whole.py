"""The data as originals see them, whatever is to be forgotten, and as references do."""

import copy

from lightning_unlearn.data.datamodule import UnlearningDataModule

__all__ = ["whole", "without_forgotten"]


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


def without_forgotten(data: UnlearningDataModule) -> UnlearningDataModule:
    """The same data as if the forgotten samples had never been there: what references are trained on.

    Args:
        data: The data; they are not changed.

    Returns:
        A copy that shares images and labels, and in which nothing is left to forget.
    """
    other = whole(data)
    other.saved = data.saved_split().for_another_request()
    other._reset_split()
    return other
