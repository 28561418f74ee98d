"""What a file of weights was trained on, by the record that lies beside it. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.files import write_text_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_unlearn.data.vision import Samples, VisionData

__all__ = ["BANK_KEYS", "ENTRY", "TRAINED", "Kept", "kept_keys", "record_beside", "record_in_bank"]

# Behind the name of a file of weights: what this one was trained on, as JSON.
TRAINED = ".trained.json"
# In an entry of the bank, and the folder of the bank with the keys of each training set, once.
ENTRY, BANK_KEYS = "entry.json", "trained"


@dataclass(frozen=True)
class Kept:
    """What a file of weights knows.

    Attributes:
        keys: Keys of the samples that it was trained on and was not made to forget.
        data: Name of the data set; empty where it is not recorded.
        place: Folder or file of the data set's training part; empty where it is not recorded.
        gone: Keys of what it was made to forget.
    """

    keys: frozenset[str]
    data: str
    place: str = ""
    gone: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: "Samples", index: "Tensor", dataset: "VisionData") -> "Kept":
        """What a model knows that is trained on some samples.

        Args:
            samples: A training set.
            index: Which of its samples, (n,), int64.
            dataset: The data set that it belongs to.

        Returns:
            The record.
        """
        return cls(frozenset(samples.keys[i] for i in index.tolist()), dataset.name, dataset.place)

    def text(self) -> str:
        """The record as it is written.

        Returns:
            JSON, the same for equal records.
        """
        return json.dumps({"data": self.data, "place": self.place, "keys": sorted(self.keys)})

    @classmethod
    def parse(cls, text: str) -> "Kept":
        """Read what `text` wrote.

        Args:
            text: JSON.

        Returns:
            The record. Other JSON is a `KeyError` or `TypeError`.
        """
        record = json.loads(text)
        return cls(frozenset(record["keys"]), str(record["data"]), str(record.get("place", "")))


def kept_keys(path: Path, unfinished: bool = False) -> Kept | None:
    """The record beside a file of weights: one of its own, that of its entry in the bank, or the split of its folder.

    Args:
        path: The file.
        unfinished: Whether it is a state in the middle of unlearning, which may know what is to be forgotten.

    Returns:
        What it knows; None without a record that can be read.
    """
    try:
        own = path.with_name(path.name + TRAINED)
        if own.is_file():
            return Kept.parse(own.read_text(encoding="utf-8"))
        entry = path.parent / ENTRY
        if entry.is_file():
            data = json.loads(entry.read_text(encoding="utf-8"))["content"]["data"]
            return Kept.parse((path.parents[1] / BANK_KEYS / f"{data}.json").read_text(encoding="utf-8"))
        split = SavedSplit.load(path.parent / SPLIT)
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return None
    known, gone = set(split.retain), set(split.removed)
    (known if unfinished else gone).update(split.forget)
    return Kept(frozenset(known), split.data, split.place, frozenset(gone))


def record_beside(path: Path, trained: Kept) -> None:
    """Write down what a file of weights was trained on, before it is kept.

    Args:
        path: The file of weights.
        trained: The record.
    """
    write_text_atomic(path.with_name(path.name + TRAINED), trained.text())


def record_in_bank(bank: Path, fingerprint: str, trained: Kept) -> None:
    """Write down a training set, before the first model that was trained on it is kept.

    Args:
        bank: The bank's folder.
        fingerprint: Hash of the training set, as in the content of an entry.
        trained: The record.
    """
    path = bank / BANK_KEYS / f"{fingerprint}.json"
    if not path.is_file():
        write_text_atomic(path, trained.text())
