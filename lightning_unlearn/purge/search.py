"""Look through the folders of runs and the bank, file by file."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.purge.elsewhere import name_data, name_origins
from lightning_unlearn.purge.folders import CONFIG, Folders, SameData, dataset_of, entries_below
from lightning_unlearn.purge.found import Purge
from lightning_unlearn.purge.weights import JudgeOfWeights
from lightning_unlearn.requests.ledger import UNLEARNED, read_ledger

__all__ = ["find"]

_WEIGHTS = (".ckpt", ".pt", ".pth", ".th", ".bin", ".safetensors")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
# Both are written from the first; its CSV holds no keys.
_REPORTS = ("report.json", "report.html")
# What a killed writer leaves: `.last.ckpt.123-abcd.tmp`, `unlearned.ckpt.part`.
_TORN = re.compile(r"\.(.+)\.\d+-[0-9a-f]{8}\.tmp|(.+)\.part")


def find(run: Path, runs: Path | None = None, bank: Path | None = None) -> Purge:
    """Look through the folders of runs and the bank for what knows the samples that a run was made to forget.

    Args:
        run: A finished run of unlearn, the last one on its model.
        runs: Folder of the runs; None: the `runs` that the run lies in, or else that of the working folder.
        bank: Folder of trained originals and references; None: `bank` in the folder of the runs.

    Returns:
        What can be deleted, and what can only be named.

    Raises:
        ConfigError: `run` is no finished run of unlearn, or its forgotten samples are not recorded; or a folder is missing.
    """
    if not (run / UNLEARNED).is_file() or not (run / SPLIT).is_file():
        raise ConfigError(f"{run} is no finished run of unlearn: it lacks {UNLEARNED} or {SPLIT}. Give the folder of one.")
    folders = Folders.of(run, runs, bank)
    entries = read_ledger(run)  # says so where it was tampered with
    run, split = run.resolve(), SavedSplit.load(run / SPLIT)
    withdrawn = frozenset(split.withdrawn)
    asked = frozenset([*split.forget, *split.removed]) | withdrawn
    found = Purge(run, asked, withdrawn, searched=folders.outermost(run))
    # What a request that only withdrew started from knows nothing that it lists.
    origins = {entry.before for entry in entries if entry.before is not None and entry.keys}
    search = _Search(found, JudgeOfWeights(found, folders.bank, split, origins), folders)
    for place in found.searched:
        for path in entries_below(place):
            search.look_at(path, place)
    if not folders.bank.is_dir():
        found.leave(folders.bank, "no bank is there; where originals and references lie elsewhere, give --bank")
    name_origins(found, folders)
    name_data(found, folders, split.place)
    return found


class _Search:
    """Judges files, one after another.

    Args:
        found: What was found so far; it is added to.
        weights: Judges files of weights.
        folders: What paths in configurations are seen from.
    """

    def __init__(self, found: Purge, weights: JudgeOfWeights, folders: Folders) -> None:
        self.found, self.weights, self.folders = found, weights, folders
        self.dataset = dataset_of(found.run)

    def look_at(self, path: Path, place: Path) -> None:
        """Judge a file.

        Args:
            path: The file.
            place: The searched folder that it lies in.
        """
        torn = _TORN.fullmatch(path.name)
        name = path.name if torn is None else torn[1] or torn[2]
        ending = Path(name).suffix.lower()
        if path == self.found.run / UNLEARNED:
            return
        if path.is_symlink():
            if path.is_dir():
                self.found.leave(path, "a link to a folder; not looked at")
            elif ending in _WEIGHTS:
                self.found.leave(path, "a link; what it points to is not looked at")
        elif name == "outputs.npz" or (ending == ".pt" and path.parent.name == "cells"):
            self._of_same_data(path, place, "answers of models to single samples")
        elif ending in _PICTURES or (ending == ".html" and _has_pictures(path)):
            self._of_same_data(path, place, "pictures of training samples may be in it")
        elif name.startswith("audit-") and ending == ".json" and path.parent.name == "cells":
            if self._named_in(path):
                self._of_same_data(path, place, "figures of the most exposed forgotten samples under their keys", named=True)
        elif name in _REPORTS and self._named_in(path.with_name("report.json")):
            self.found.leave(path, "a report, which is evidence, that names forgotten samples by their keys")
        elif ending == ".csv" and self._scores(path):
            self.found.leave(path, "scores of forgotten samples under their keys, no images")
        elif ending in _WEIGHTS:
            self.weights.look_at(path, name, torn is not None)

    def _of_same_data(self, path: Path, place: Path, why: str, named: bool = False) -> None:
        folder = next((p for p in path.parents if (p / CONFIG).is_file()), None)
        if folder is None or not folder.is_relative_to(place) or self.dataset is None:
            self.found.leave(path, f"{why}; nothing says of which data")
            return
        same = SameData.of(dataset_of(folder), self.dataset, self.folders, self.weights.split.place)
        if same is SameData.YES:
            self.found.take(path, why)
        elif same is SameData.PERHAPS:
            self.found.leave(path, f"{why}; the data set is given otherwise, and whether it is the same is not known")
        elif named:
            self.found.leave(path, f"{why}; the data set lies elsewhere, and whether the keys mean the same is not known")
        elif self.weights.classes:
            self.found.leave(path, f"{why}; whether of classes that were forgotten without data is not recorded")

    def _named_in(self, path: Path) -> bool:
        """Whether a report, or the record of an audit, names a forgotten sample: those of `detect` name suspects."""
        with suppress(OSError, ValueError):
            return not self.found.forgotten.isdisjoint(_keys_in(json.loads(path.read_text(encoding="utf-8"))))
        return False

    def _scores(self, path: Path) -> bool:
        with suppress(OSError, UnicodeDecodeError, csv.Error), path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            if [cell.strip() for cell in next(rows, [])[:1]] == ["key"]:
                return any(row[0] in self.found.forgotten for row in rows if row)
        return False


def _keys_in(node: object) -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else ():
        if name == "key" and isinstance(value, str):
            yield value
        yield from _keys_in(value)
    for value in node if isinstance(node, list) else ():
        yield from _keys_in(value)


def _has_pictures(path: Path) -> bool:
    with suppress(OSError):
        return b"data:image" in path.read_bytes()
    return False
