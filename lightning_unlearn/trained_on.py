"""What a file of weights was trained on, by the record that lies beside it. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.files import write_text_atomic

__all__ = ["ENTRY", "TRAINED", "Kept", "kept_keys", "record_in_bank"]

# Behind the name of a file of weights: the keys that this one was trained on, as a JSON list.
TRAINED = ".trained.json"
# In an entry of the bank, and the folder of the bank with the keys of each training set, once.
ENTRY, BANK_KEYS = "entry.json", "trained"


@dataclass(frozen=True)
class Kept:
    """What a file of weights knows.

    Attributes:
        keys: Keys of the samples that it was trained on and was not made to forget.
        data: Name of the data set; empty where it is not recorded.
    """

    keys: frozenset[str]
    data: str


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
            return Kept(frozenset(json.loads(own.read_text(encoding="utf-8"))), "")
        entry = path.parent / ENTRY
        if entry.is_file():
            data = json.loads(entry.read_text(encoding="utf-8"))["content"]["data"]
            record = json.loads((path.parents[1] / BANK_KEYS / f"{data}.json").read_text(encoding="utf-8"))
            return Kept(frozenset(record["keys"]), str(record["data"]))
        split = SavedSplit.load(path.parent / SPLIT)
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return None
    return Kept(frozenset([*split.retain, *(split.forget if unfinished else [])]), split.data)


def record_in_bank(bank: Path, fingerprint: str, keys: Sequence[str], data: str) -> None:
    """Write down the keys of a training set, before the first model that was trained on it is kept.

    Args:
        bank: The bank's folder.
        fingerprint: Hash of the training set, as in the content of an entry.
        keys: Keys of its samples.
        data: Name of the data set.
    """
    path = bank / BANK_KEYS / f"{fingerprint}.json"
    if not path.is_file():
        write_text_atomic(path, json.dumps({"data": data, "keys": list(keys)}))
