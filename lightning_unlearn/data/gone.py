"""Samples whose files are gone: what a rule asks for and the model still knows cannot be forgotten, and is not passed over."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from lightning_unlearn.data.saved_split import names_class
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.words import plural

__all__ = ["gone_keys", "gone_of_classes", "gone_with_values", "labels_of", "refuse_lost"]


def gone_keys(samples: Samples) -> list[str]:
    """Samples that the split beside the checkpoint knows and that are gone.

    Args:
        samples: The training set.

    Returns:
        Their keys, sorted; empty where there is no such split.
    """
    return [] if samples.former is None else sorted(samples.former.trained | samples.former.others)


def refuse_lost(samples: Samples, keys: Collection[str], who: str) -> None:
    """Refuse a request for samples that are gone and that the model still knows.

    Args:
        samples: The training set.
        keys: Keys that the request means.
        who: What names them, for the message.

    Raises:
        DataError: There are such samples among them.
    """
    lost = [] if samples.former is None else sorted(samples.former.trained.intersection(keys))
    if lost:
        raise DataError(
            f"{who} {len(lost)} samples whose images are gone although the model still knows them, {lost[0]!r} among them. "
            "Unlearning looks at the images: restore them, unlearn, and delete them then. Where they cannot be restored, train "
            "a new model on what is left."
        )


def gone_of_classes(samples: Samples, labels: Collection[int]) -> tuple[list[str], str]:
    """Samples of some classes that are gone, as far as the split beside the checkpoint or the folders in their keys tell.

    Args:
        samples: The training set.
        labels: The classes.

    Returns:
        Their keys, sorted, and what to warn of: samples that the model was trained on of which no class is known.
    """
    found = labels_of(samples, gone_keys(samples), {} if samples.former is None else samples.former.labels)
    caution = _caution(samples, [key for key, label in found.items() if label is None], "class")
    return [key for key, label in found.items() if label in labels], caution


def labels_of(samples: Samples, keys: Iterable[str], recorded: Mapping[str, int]) -> dict[str, int | None]:
    """Classes of samples that need not be there.

    Args:
        samples: The training set.
        keys: Keys.
        recorded: Labels by key of which the split beside the checkpoint tells.

    Returns:
        The label of each, else that of the folder in its key; None where neither tells one.
    """
    label_of = {folder: label for label, folder in enumerate(samples.folders)}
    return {key: recorded.get(key, label_of.get(key.partition("/")[0])) for key in keys}


def gone_with_values(samples: Samples, column: str, values: Collection[str]) -> tuple[dict[str, str], str]:
    """Samples with some values of an attribute that are gone, as far as the table still has their rows.

    Args:
        samples: The training set.
        column: Name of the attribute.
        values: The values.

    Returns:
        The value of each by its key, and what to warn of: samples that the model was trained on of which no value is known.
    """
    rows = samples.named_attributes.get(column, {})
    # A file name that a sample has which is there tells of that one.
    there = {PurePosixPath(key).name for key in samples.keys}
    names = {key: PurePosixPath(key).name for key in gone_keys(samples)}
    found = {key: rows.get(key, None if name in there else rows.get(name)) for key, name in names.items()}
    caution = _caution(samples, [key for key, value in found.items() if value is None], f"value of {column!r}")
    return {key: value for key, value in found.items() if value is not None and value in values}, caution


def _caution(samples: Samples, unknown: Iterable[str], what: str) -> str:
    trained = frozenset() if samples.former is None else samples.former.trained
    count = sum(key in trained and not names_class(key) for key in unknown)
    if not count:
        return ""
    return (
        f"{plural(count, 'sample')} that the model was trained on {'is' if count == 1 else 'are'} gone, and nothing tells "
        f"their {what}. What this request means of them stays known to the model: restore the images, unlearn, and delete them "
        "then."
    )
