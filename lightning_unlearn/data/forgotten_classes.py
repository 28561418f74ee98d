"""Splits of requests that were fulfilled without data: by class, until the data tell which samples those are."""

from dataclasses import replace
from pathlib import Path

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit
from lightning_unlearn.data.vision import Samples

__all__ = ["class_key", "resolve_classes", "split_without_data"]


def class_key(label: int) -> str:
    """The key that stands for all samples of a class where samples are not known.

    Args:
        label: The class.

    Returns:
        The key.
    """
    return f"class:{label}"


def split_without_data(checkpoint: str | Path | None, own: SavedSplit) -> SavedSplit:
    """The split of a model that was unlearned without data: the original's, where it lies beside it, and what was forgotten.

    Args:
        checkpoint: The original.
        own: The split of the classes, by their keys.

    Returns:
        The split to keep beside the unlearned model.
    """
    path = None if checkpoint is None else Path(checkpoint).parent / SPLIT
    if path is None or not path.is_file():
        return replace(own, classes=[], data="", altered=None)
    before = SavedSplit.load(path).for_another_request()
    return replace(before, forget=own.forget, retain=[key for key in before.retain if key not in own.forget])


def resolve_classes(saved: SavedSplit, samples: Samples) -> SavedSplit:
    """A split in which keys that stand for classes have drawn their samples to where they stand themselves.

    Args:
        saved: The split beside a checkpoint.
        samples: The training set.

    Returns:
        The split; as it was where no key stands for a class.
    """
    labels = samples.targets.tolist()
    known = {name: set(getattr(saved, name)) for name in ("forget", "retain", "removed", "unseen")}
    at = {label: name for label in set(labels) for name, keys in known.items() if class_key(label) in keys}
    for key, label in zip(samples.keys, labels, strict=True):
        if label in at and not any(key in known[name] for name in ("forget", "removed", "unseen")):
            known["retain"].discard(key)
            known[at[label]].add(key)
    if not at:
        return saved
    return replace(saved, **{name: sorted(keys) for name, keys in known.items()})  # type: ignore[arg-type]  # its parts
