"""The split of a trained model by keys, as it lies beside its checkpoint. Imports no torch."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lightning_unlearn.exceptions import CheckpointError, DataError
from lightning_unlearn.files import write_text_atomic

__all__ = ["SPLIT", "Former", "SavedSplit", "class_key", "label_named", "names_class", "saved_beside", "say_nothing"]

SPLIT = "split.json"
_PARTS = ("forget", "retain", "unseen", "removed")
_NAMING = (*_PARTS, "withdrawn")
_CLASS = re.compile(r"class:[0-9]+")


def class_key(label: int) -> str:
    """The key that stands for all samples of a class where samples are not known.

    Args:
        label: The class.

    Returns:
        The key.
    """
    return f"class:{label}"


def names_class(key: str) -> bool:
    """Whether a key is one of `class_key`.

    Args:
        key: The key.

    Returns:
        True where it stands for a class.
    """
    return _CLASS.fullmatch(key) is not None


def say_nothing(classes: Sequence[str]) -> bool:
    """Whether names of classes are but their labels, as data without names have them.

    Args:
        classes: Names, in the order of the labels.

    Returns:
        True where they do not say what labels mean.
    """
    return list(classes) == [str(label) for label in range(len(classes))]


def label_named(key: str) -> int:
    """The class that a key of `class_key` stands for.

    Args:
        key: The key.

    Returns:
        Its label.
    """
    return int(key.partition(":")[2])


@dataclass(frozen=True)
class Former:
    """What is known of samples that lay in the data when a checkpoint was trained.

    Attributes:
        trained: Keys of samples that it was trained on and that are gone.
        others: Keys of further samples that are gone: unseen, or forgotten by now.
        renumbered: Whether samples went or came since, so that a position may mean another sample than it did.
        labels: Labels of those of which one was recorded, by key.
    """

    trained: frozenset[str]
    others: frozenset[str]
    renumbered: bool
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedSplit:
    """The split of a trained model by keys, so that it holds after files were deleted.

    Samples stay in it when their files are gone: what was forgotten must not come back with a restored backup, and what was
    only deleted is still known to the model.

    Attributes:
        forget: Keys of what is forgotten.
        retain: Keys of what is retained: what the model was trained on and still knows.
        unseen: Keys of what the model never trained on.
        removed: Keys of what earlier requests removed.
        classes: Names of the classes in the order of the labels; empty where they were not recorded.
        data: Name of the data set; empty where it was not recorded.
        place: Folder or file of its training part; empty where it was not recorded. Two sets of one name may have equal keys.
        outside: Keys of samples from elsewhere that a stage trained on, behind `test/` or `unseen/` (a data set of such).
        altered: Label noise and trigger that the model was trained with, in words; empty: none; None: not recorded.
        withdrawn: Keys of unseen samples that requests listed: in no part any more, though the model never trained on them.
        mean: Per-channel mean that is taken from its input, of pixels in 0 ... 1; empty where it was not recorded.
        std: Per-channel deviation that its input is then divided by; likewise.
        by_content: Whether keys of samples are hashes of their content, which mean the same image everywhere; None: not
            recorded.
        labels: Labels by key, as the model learnt them, of samples of which one was recorded: once a file is gone, its key need
            not tell its class.
    """

    forget: list[str]
    retain: list[str]
    unseen: list[str]
    removed: list[str]
    classes: list[str] = field(default_factory=list)
    data: str = ""
    place: str = ""
    outside: list[str] = field(default_factory=list)
    altered: str | None = None
    withdrawn: list[str] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    by_content: bool | None = None
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def named(self) -> set[str]:
        """Keys of all samples that lay in the data when the model was trained; of classes that stand for samples none."""
        return {key for part in _NAMING for key in getattr(self, part) if not names_class(key)}

    def save(self, path: str | Path) -> None:
        """Write to a file; at any moment it holds either the old or the new split, whole.

        Args:
            path: A `.json` file.
        """
        # As numbers beside the keys of each part: they would double the file if they named the samples again.
        labels = {part: [self.labels.get(key) for key in getattr(self, part)] for part in _NAMING}
        write_text_atomic(path, json.dumps(asdict(replace(self, labels={})) | {"labels": labels}, indent=0))

    def for_another_request(self) -> "SavedSplit":
        """The same with everything that was forgotten removed for good.

        Returns:
            A split without a forgotten part.
        """
        return replace(self, forget=[], removed=[*self.removed, *self.forget])

    def former(self, keys: Iterable[str]) -> Former:
        """What the split knows of samples that are gone.

        Args:
            keys: Keys of the samples that are there.

        Returns:
            Their keys, by what the model has of them.
        """
        there = set(keys)
        known = {key for part in _NAMING for key in getattr(self, part)}
        trained = frozenset(self.retain) - there
        gone = known - there
        labels = {key: label for key, label in self.labels.items() if key in gone}
        return Former(trained, frozenset(gone) - trained, known != there, labels)

    def check_classes(self, classes: list[str]) -> None:
        """See that labels mean what they meant.

        Args:
            classes: Names of the classes of the data as they are now.

        Raises:
            DataError: They are others, or stand in another order.
        """
        if self.classes and self.classes != classes:
            gone = [name for name in self.classes if name not in classes]
            why = f"{gone[0]!r} is gone" if gone else f"{len(classes)} in place of {len(self.classes)}, or in another order"
            raise DataError(
                f"The classes are not those that the checkpoint was trained with ({why}), so labels would mean others. Where "
                "the last image of a class was deleted, keep an empty folder of its name; or, where the test part still has "
                "it, give --data.dataset.classes, the same list as in training. Its classes were "
                f"{json.dumps(self.classes, ensure_ascii=False)}."
            )

    @classmethod
    def load(cls, path: str | Path) -> "SavedSplit":
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The split.

        Raises:
            CheckpointError: The file is missing or damaged, or names a sample twice.
        """
        remedy = "It lies beside the checkpoint that it belongs to; restore both together."
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"{path}: no saved split can be read ({error.strerror or error}). {remedy}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); needed: the JSON of a saved split. {remedy}") from error
        if not isinstance(content, dict) or any(name not in content for name in _PARTS):
            missing = [n for n in _PARTS if not isinstance(content, dict) or n not in content]
            raise CheckpointError(f"{path} is no saved split: {', '.join(missing)} missing. {remedy}")
        content.setdefault("withdrawn", [])  # splits of earlier versions have none
        seen: set[str] = set()
        for name in _NAMING:
            keys = content[name]
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise CheckpointError(f"{path}: {name!r} is not a list of keys. {remedy}")
            for key in keys:
                if key in seen:
                    raise CheckpointError(f"{path} names the sample {key!r} twice; needed: each one once. {remedy}")
                seen.add(key)
        classes, data, place = content.get("classes", []), content.get("data", ""), content.get("place", "")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in (*classes, data, place)):
            raise CheckpointError(f"{path}: 'classes', 'data' or 'place' is no list of names, or no name. {remedy}")
        outside = content.get("outside", [])
        if not isinstance(outside, list) or not all(isinstance(key, str) for key in outside):
            raise CheckpointError(f"{path}: 'outside' is not a list of keys. {remedy}")
        altered = content.get("altered")
        if not isinstance(altered, str | None):
            raise CheckpointError(f"{path}: 'altered' is no text. {remedy}")
        mean, std = content.get("mean", []), content.get("std", [])
        if not (_numbers(mean) and _numbers(std) and len(mean) == len(std) and all(value > 0 for value in std)):
            raise CheckpointError(f"{path}: 'mean' or 'std' is no list of numbers, one for each channel. {remedy}")
        by_content = content.get("by_content")
        if not isinstance(by_content, bool | None):
            raise CheckpointError(f"{path}: 'by_content' is neither true nor false. {remedy}")
        if not _are_labels(content.get("labels", {})):
            raise CheckpointError(f"{path}: 'labels' is no list of labels for each part. {remedy}")
        forget, retain, unseen, removed, withdrawn = (content[name] for name in _NAMING)
        labels: dict[str, int] = {}
        for name, of in content.get("labels", {}).items():
            # Where somebody edited the keys, nothing says any more which label is whose.
            if len(of) == len(content[name]):
                labels |= {key: label for key, label in zip(content[name], of, strict=True) if label is not None}
        how = (classes, data, place, outside, altered, withdrawn, mean, std, by_content, labels)
        return cls(forget, retain, unseen, removed, *how)


def saved_beside(checkpoint: str | Path) -> SavedSplit | None:
    """The split of a checkpoint.

    Args:
        checkpoint: Its file.

    Returns:
        What lies beside it; None where nothing does. A damaged file is a `CheckpointError`.
    """
    path = Path(checkpoint).parent / SPLIT
    return SavedSplit.load(path) if path.is_file() else None


def _are_labels(labels: object) -> bool:
    if not isinstance(labels, dict) or not all(name in _NAMING and isinstance(of, list) for name, of in labels.items()):
        return False
    return all(label is None or type(label) is int for of in labels.values() for label in of)


def _numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)
