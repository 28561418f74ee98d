"""Splits of requests that were fulfilled without data: by class, until the data tell which samples those are."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lightning_unlearn.data.gone import labels_of
from lightning_unlearn.data.saved_split import SavedSplit, class_key, label_named, names_class, saved_beside, say_nothing
from lightning_unlearn.data.vision import Samples

__all__ = [
    "classes_alone",
    "classes_without",
    "knows_classes_alone",
    "resolve_classes",
    "split_without_data",
    "with_new",
    "with_unseen",
]


def split_without_data(checkpoint: str | Path | None, own: SavedSplit) -> SavedSplit:
    """The split of a model that was unlearned without data: the original's, where it lies beside it, and what was forgotten.

    Args:
        checkpoint: The original.
        own: The split of the classes, by their keys.

    Returns:
        The split to keep beside the unlearned model.
    """
    saved = None if checkpoint is None else saved_beside(checkpoint)
    if saved is None:
        # Names that were given say what labels mean; numerals that count them say nothing.
        named = [] if say_nothing(own.classes) else own.classes
        return replace(own, classes=named, data="", place="", altered=None, mean=[], std=[])
    before = saved.for_another_request()
    return replace(before, forget=own.forget, retain=[key for key in before.retain if key not in own.forget])


def resolve_classes(saved: SavedSplit, samples: Samples) -> SavedSplit:
    """A split in which keys that stand for classes have drawn their samples to where they stand themselves.

    Args:
        saved: The split beside a checkpoint.
        samples: The training set.

    Returns:
        The split; as it was where no key stands for a class.
    """
    # Those that are gone, too: nothing else would say that the model does not know them any more.
    named = saved.named
    label_of = {key: label for key, label in labels_of(samples, named, saved.labels).items() if label is not None}
    label_of |= samples.labels
    if named:
        # What came later is no sample that the model was trained on.
        label_of = {key: label for key, label in label_of.items() if key in named}
    known = {name: set(getattr(saved, name)) for name in ("forget", "retain", "removed", "unseen")}
    at = {label: name for label in set(label_of.values()) for name, keys in known.items() if class_key(label) in keys}
    withdrawn = set(saved.withdrawn)
    for key, label in label_of.items():
        if label in at and key not in withdrawn and not any(key in known[name] for name in ("forget", "removed", "unseen")):
            known["retain"].discard(key)
            known[at[label]].add(key)
    if not at:
        return saved
    return replace(saved, **{name: sorted(keys) for name, keys in known.items()})  # type: ignore[arg-type]  # its parts


def classes_without(
    samples: Samples, gone: Collection[str], kept: Collection[str], num_classes: int, recorded: Mapping[str, int]
) -> Tensor:
    """Classes of some samples to which none of some others belongs.

    Args:
        samples: The training set.
        gone: Keys of the former; they need not be there. Where nothing tells the class of one, it may be any, unless nothing
            tells it of one of the latter either.
        kept: Keys of the latter, likewise.
        num_classes: Number of classes.
        recorded: See `labels_of`.

    Returns:
        Labels, (C,), int64, sorted.
    """
    there = samples.labels

    def labels(keys: Collection[str]) -> set[int | None]:
        lost = [key for key in keys if key not in there]
        named = {label_named(key) for key in lost if names_class(key)}
        known = {there[key] for key in keys if key in there} | named
        return known | {*labels_of(samples, (key for key in lost if not names_class(key)), recorded).values()}

    left, stay = labels(gone), labels(kept)
    left = set(range(num_classes)) if None in left and None not in stay else left
    return torch.tensor(sorted(label for label in left - stay if label is not None), dtype=torch.int64)


def classes_alone(saved: SavedSplit, classes: list[str]) -> SavedSplit:
    """A split in which keys of classes stand for samples, for where there are no data.

    Args:
        saved: The split beside a checkpoint.
        classes: Names of the classes as they are now; numerals where only their number was given.

    Returns:
        What it says of classes: those that were forgotten as a whole without data are removed, the others retained. Names of
        classes that are others, or stand in another order, are a `DataError`.
    """
    every = [class_key(label) for label in range(len(classes))]
    if not say_nothing(classes) and not say_nothing(saved.classes):
        saved.check_classes(classes)
    gone = {*saved.forget, *saved.removed}
    return SavedSplit([], [key for key in every if key not in gone], [], [key for key in every if key in gone], classes)


def knows_classes_alone(saved: SavedSplit) -> bool:
    """Whether a split names no sample, so that it does not say which ones its model was trained on.

    Args:
        saved: The split beside a checkpoint.

    Returns:
        True where all its keys stand for classes.
    """
    keys = [*saved.forget, *saved.retain, *saved.unseen, *saved.removed]
    return bool(keys) and all(map(names_class, keys))


def with_new(saved: SavedSplit, samples: Samples) -> SavedSplit:
    """A split that retains samples which it does not name, but for those of classes that were forgotten by their names.

    Args:
        saved: The split.
        samples: The training set.

    Returns:
        The split.
    """
    named, gone = saved.named, {*saved.forget, *saved.removed}
    new = [key for key, label in samples.labels.items() if key not in named and class_key(label) not in gone]
    return replace(saved, retain=[*saved.retain, *new])


def with_unseen(saved: SavedSplit, unseen: Iterable[str], judged: bool) -> SavedSplit:
    """A split with samples moved to where the model never saw them.

    Args:
        saved: The split.
        unseen: Keys of samples that were carved out when the model was trained.
        judged: Whether the split's own request is judged; else what is forgotten stays forgotten, for another request.

    Returns:
        The split.
    """
    carved = set(unseen)
    moved = [key for key in (*saved.retain, *(saved.forget if judged else [])) if key in carved]
    taken = set(moved)
    retain, forget = ([key for key in part if key not in taken] for part in (saved.retain, saved.forget))
    return replace(saved, forget=forget, retain=retain, unseen=[*saved.unseen, *sorted(moved)])
