"""What stands for unseen samples: part of the training set, another data set, or half of the test set."""

from typing import Literal

import torch
from torch import Tensor

from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.saved_split import say_nothing
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.exceptions import ConfigError, DataError

__all__ = ["Unseen", "carved", "check_unseen", "halves", "remedy"]

# A share or count carved out of the training set, a data set, or half of the test set; None: a tenth is carved out.
Unseen = float | VisionData | Literal["half_of_test"] | None
_DEFAULT = 0.1


def check_unseen(unseen: Unseen, dataset: VisionData) -> None:
    """Refuse what can not stand for unseen samples of a data set.

    Args:
        unseen: What was given.
        dataset: The data set.

    Raises:
        ConfigError: It is no share, whole number, data set or `half_of_test`.
        DataError: It is a data set of other classes.
    """
    if isinstance(unseen, float | int) and not (0 <= unseen < 1 or (unseen >= 1 and float(unseen).is_integer())):
        raise ConfigError(f"unseen is {unseen}; needed: a share below 1, a whole number of samples, or a data set.")
    if isinstance(unseen, str) and unseen != "half_of_test":
        raise ConfigError(f"unseen is {unseen!r}; needed: a share or number of samples, a data set, or 'half_of_test'.")
    if not isinstance(unseen, VisionData):
        return
    few = len(unseen.classes) <= len(dataset.classes)
    nameless = say_nothing(unseen.classes) or say_nothing(dataset.classes)
    if not few or not (nameless or unseen.classes == dataset.classes[: len(unseen.classes)]):
        raise DataError(
            f"The classes of unseen are {', '.join(unseen.classes)}, and those of the data {', '.join(dataset.classes)}; "
            "needed: the same, in the same order, or its labels would mean others."
        )


def carved(unseen: Unseen, samples: Samples, seed: int) -> Tensor:
    """Samples of the training set that the original never trains on.

    Args:
        unseen: A share below 1, a number of samples, or None: a tenth.
        samples: The training set.
        seed: Seed of the draw.

    Returns:
        Sample indices, (U,), int64, sorted.

    Raises:
        DataError: Nothing would be left to train on.
    """
    assert not isinstance(unseen, VisionData | str)
    n, share = len(samples), _DEFAULT if unseen is None else unseen
    count = round(share * n) if share < 1 else int(share)
    if count >= n:
        raise DataError(f"unseen is {share} of {n} training samples; needed: fewer than all of them.")
    return order(samples.hashes, seed, "unseen")[:count].sort().values


def halves(test: Samples, seed: int | None) -> tuple[Tensor, Tensor]:
    """Test samples that stand for unseen ones, and those that report.

    Args:
        test: The test part.
        seed: Seed of the draw; None: none stands for unseen.

    Returns:
        Indices in the test part, each int64, sorted.
    """
    n = len(test)
    if seed is None:
        return torch.empty(0, dtype=torch.int64), torch.arange(n)
    shuffled = order(test.hashes, seed, "test halves")
    return shuffled[: n // 2].sort().values, shuffled[n // 2 :].sort().values


def remedy(settled: bool) -> str:
    """What gives unseen samples, or more of them.

    Args:
        settled: Whether the training of a checkpoint has settled which samples are unseen.

    Returns:
        A sentence for messages.
    """
    if not settled:
        return "Give --data.unseen 0.1, or more."
    return (
        "The training of the checkpoint has settled which samples are unseen: give --data.unseen half_of_test, or train with "
        "more of them."
    )
