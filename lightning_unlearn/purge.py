"""What still holds forgotten data, or was trained on it: found by what each file's record says. Imports no torch."""

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit
from lightning_unlearn.exceptions import ConfigError, RunError
from lightning_unlearn.files import LOCK_NAME, hash_of_file, lock_folder
from lightning_unlearn.ledger import UNLEARNED, read_ledger
from lightning_unlearn.trained_on import ENTRY, TRAINED, kept_keys

__all__ = ["Finding", "Purge", "delete", "find"]

_WEIGHTS = (".ckpt", ".pt", ".pth", ".th", ".bin", ".safetensors")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
# What a killed writer leaves: `.last.ckpt.123-abcd.tmp`, `unlearned.ckpt.part`.
_TORN = re.compile(r"\.(.+)\.\d+-[0-9a-f]{8}\.tmp|(.+)\.part")
# Keys by content: who has such a key has the very image.
_CONTENT = re.compile(r"[0-9a-f]{16}(#[0-9]+)?")
CONFIG = "config.yaml"


@dataclass(frozen=True)
class Finding:
    """A file or a place that holds something of the forgotten samples, or may.

    Attributes:
        path: Where it is.
        size: Bytes.
        why: What it holds.
    """

    path: Path
    size: int
    why: str


@dataclass
class Purge:
    """What was found.

    Attributes:
        run: The run whose requests count; its checkpoint stays.
        forgotten: Keys of all samples that it and the runs before it were made to forget.
        deletable: What `delete` takes away.
        left: What it does not: it lies elsewhere, nothing says what it was trained on, or somebody uses it.
    """

    run: Path
    forgotten: frozenset[str]
    deletable: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)


def find(run: Path, runs: Path, bank: Path) -> Purge:
    """Look through the folders of runs and the bank for what knows the samples that a run was made to forget.

    Args:
        run: A finished run of unlearn, the last one on its model.
        runs: Folder of the runs.
        bank: Folder of trained originals and references.

    Returns:
        What can be deleted, and what can only be named.

    Raises:
        ConfigError: `run` is no finished run of unlearn, or its forgotten samples are not recorded.
    """
    if not (run / UNLEARNED).is_file() or not (run / SPLIT).is_file():
        raise ConfigError(f"{run} is no finished run of unlearn: it lacks {UNLEARNED} or {SPLIT}. Give the folder of one.")
    entries = read_ledger(run)  # says so where it was tampered with
    split = SavedSplit.load(run / SPLIT)
    search = _Search(run.resolve(), bank.resolve(), split, {entry.before for entry in entries if entry.before is not None})
    places = [place.resolve() for place in (runs, bank, run) if place.is_dir()]
    outermost = [p for p in dict.fromkeys(places) if not any(other != p and p.is_relative_to(other) for other in places)]
    for place in outermost:
        for path in _files_below(place):
            search.look_at(path, place)
    search.elsewhere(outermost)
    return search.found


def delete(found: Purge) -> list[Finding]:
    """Delete what was found; what another process uses stays and is added to what is left.

    Args:
        found: See `find`.

    Returns:
        What was deleted.
    """
    deleted = []
    for finding in found.deletable:
        try:
            with _held(finding.path):
                finding.path.unlink(missing_ok=True)
        except (RunError, OSError) as error:
            found.left.append(Finding(finding.path, finding.size, f"{finding.why}; it could not be deleted: {error}"))
            continue
        deleted.append(finding)
    found.deletable = []
    return deleted


class _Search:
    """Judges files, one after another.

    Args:
        run: The run whose requests count.
        bank: Folder of the bank.
        split: The run's split.
        origins: Hashes of the checkpoints that its requests started from.
    """

    def __init__(self, run: Path, bank: Path, split: SavedSplit, origins: set[str]) -> None:
        self.bank = bank
        self.found = Purge(run, frozenset([*split.forget, *split.removed]))
        self.data = split.data
        self.origins = origins
        self.dataset = _dataset_of(run)

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
            if ending in _WEIGHTS:
                self._leave(path, "a link; what it points to is not looked at")
        elif name == "outputs.npz" or (ending == ".pt" and path.parent.name == "cells"):
            self._of_same_data(path, place, "answers of models to single samples")
        elif ending in _PICTURES or (ending == ".html" and _has_pictures(path)):
            self._of_same_data(path, place, "pictures of training samples may be in it")
        elif ending == ".csv" and self._scores(path):
            self._leave(path, "scores of forgotten samples under their keys, no images")
        elif ending in _WEIGHTS:
            self._weights(path, name, torn is not None)

    def _weights(self, path: Path, name: str, torn: bool) -> None:
        entry = path.parent / ENTRY
        if path.parent.parent == self.bank and (torn or not entry.is_file()):
            self._delete(path, "an entry of the bank that was never finished")
            return
        kept = kept_keys(path.with_name(name), unfinished=torn or name.startswith("stage"))
        if kept is None:
            if hash_of_file(path) in self.origins:
                self._delete(path, "the checkpoint that a request started from")
            else:
                self._leave(path, "nothing beside it says what it was trained on")
            return
        known = kept.keys & self.found.forgotten
        if not known:
            return
        of_training = path.parent.name == "checkpoints"
        why = f"trained on {len(known)} forgotten samples" + (", with its optimiser state" if of_training else "")
        if not kept.data or not self.data or kept.data == self.data or all(_CONTENT.fullmatch(key) for key in known):
            self._delete(path, why)
            for side in (path.with_name(path.name + TRAINED), path.with_suffix(".json")):
                if side.is_file() and name.startswith(("stage", "shard")):
                    self._delete(side, "belongs to it")
            if entry.is_file():
                self._delete(entry, "belongs to it")
        else:
            self._leave(path, f"trained on {len(known)} samples of these names, but of the data set {kept.data!r}")

    def _of_same_data(self, path: Path, place: Path, why: str) -> None:
        folder = next((p for p in path.parents if (p / CONFIG).is_file()), None)
        if folder is None or not folder.is_relative_to(place) or self.dataset is None:
            self._leave(path, f"{why}; nothing says of which data")
        elif _dataset_of(folder) == self.dataset:
            self._delete(path, why)

    def elsewhere(self, searched: list[Path]) -> None:
        """Name what lies outside the searched folders.

        Args:
            searched: The searched folders.
        """
        folder: Path | None = self.found.run
        seen: set[Path] = set()
        while folder is not None and folder not in seen and (folder / CONFIG).is_file():
            seen.add(folder)
            start = _config(folder).get("checkpoint")
            path = Path(start).resolve() if isinstance(start, str) and start not in ("", "none") else None
            if path is not None and path.is_file() and not any(path.is_relative_to(place) for place in searched):
                self._leave(path, "the checkpoint that a request started from; it lies outside the folders of runs and bank")
            folder = None if path is None else path.parent
        for text in _texts(self.dataset):
            data = Path(text).expanduser()
            if data.is_dir():
                there = sum((data / key).is_file() for key in self.found.forgotten)
                why = f"your data: {there} of the {len(self.found.forgotten)} forgotten files are there"
                self._leave(data, why if there else "your data: no forgotten file is there by its key")
            elif data.is_file():
                self._leave(data, "your data: whether forgotten samples are in it was not looked at")

    def _scores(self, path: Path) -> bool:
        with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as file:
            if file.readline().partition(",")[0].strip().strip('"') == "key":
                return any(line.partition(",")[0].strip('"\n') in self.found.forgotten for line in file)
        return False

    def _delete(self, path: Path, why: str) -> None:
        if all(path != finding.path for finding in self.found.deletable):
            self.found.deletable.append(Finding(path, _size(path), why))

    def _leave(self, path: Path, why: str) -> None:
        self.found.left.append(Finding(path, _size(path), why))


def _files_below(place: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(place):
        folders.sort()
        yield from (Path(base, name) for name in sorted(files) if name != LOCK_NAME)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _has_pictures(path: Path) -> bool:
    with suppress(OSError):
        return b"data:image" in path.read_bytes()
    return False


def _config(folder: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _dataset_of(folder: Path) -> object:
    """The data set in the configuration of a run; None where it cannot be read."""
    data = _config(folder).get("data")
    return data.get("dataset") if isinstance(data, dict) else None


def _texts(node: object) -> Iterator[str]:
    """The arguments of a data set that may be paths."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key != "class_path":
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str) and node:
        yield node


@contextmanager
def _held(path: Path) -> Generator[None]:
    """Hold the folder of the run, or of the bank's entry, that a file lies in."""
    folder = next((p for p in path.parents if (p / LOCK_NAME).is_file()), None)
    with nullcontext() if folder is None else lock_folder(folder):
        yield
