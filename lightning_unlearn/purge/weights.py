"""Judge a file of weights by the record of what it was trained on; in doubt it is left and named."""

import re
from pathlib import Path

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit, names_class
from lightning_unlearn.data.vision import is_content_key
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.purge.folders import CONFIG
from lightning_unlearn.purge.found import Purge
from lightning_unlearn.weights.trained_on import BANK_KEYS, ENTRY, TRAINED, Kept, kept_keys

__all__ = ["JudgeOfWeights"]

# Names of the bank's entries.
_HASH = re.compile(r"[0-9a-f]{24}")


class JudgeOfWeights:
    """Says of files of weights whether they know forgotten samples.

    Args:
        found: What was found so far; it is added to.
        bank: Folder of the bank.
        split: The split of the run whose requests count.
        origins: Hashes of the checkpoints that its requests started from.
    """

    def __init__(self, found: Purge, bank: Path, split: SavedSplit, origins: set[str]) -> None:
        self.found, self.bank, self.split, self.origins = found, bank, split, origins
        self.classes = frozenset(filter(names_class, found.forgotten))

    def look_at(self, path: Path, name: str, torn: bool) -> None:
        """Judge a file.

        Args:
            path: The file.
            name: Its name, or the one that it was to get.
            torn: Whether a killed writer left it.
        """
        finished = (path.parent / ENTRY).is_file()
        if path.parent.parent == self.bank and (torn or not finished) and self._is_entry(path.parent):
            self.found.take(path, "an entry of the bank that was never finished")
            return
        kept = kept_keys(path.with_name(name), unfinished=torn or name.startswith("stage"))
        known = frozenset() if kept is None else (kept.keys & self.found.forgotten) - self.classes
        doubt = self._doubt(kept, known)
        if known and doubt is None:
            of_training = path.parent.name == "checkpoints"
            why = f"trained on {len(known)} forgotten samples" + (", with its optimiser state" if of_training else "")
            self.found.take(path, why)
            self._with_its_record(path, name)
        elif self.origins and hash_of_file(path) in self.origins:
            self.found.take(path, "the checkpoint that a request started from")
            self._with_its_record(path, name)
        elif doubt is not None:
            self.found.leave(path, doubt)

    def _doubt(self, kept: Kept | None, known: frozenset[str]) -> str | None:
        """Why nothing certain can be said; None: what `known` says holds."""
        if kept is None:
            return "nothing beside it says what it was trained on"
        others = bool(kept.data and self.split.data and kept.data != self.split.data)
        if known:
            # Earlier splits do not record it: then the form of the keys counts.
            by_content = self.split.by_content is not False and any(map(is_content_key, known))
            if by_content or (kept.place and kept.place == self.split.place):
                return None
            names = f"trained on {len(known)} samples of these names"
            if others:
                return f"{names}, but of the data set {kept.data!r}"
            if kept.place and self.split.place:
                return f"{names}, but of the data in {kept.place}"
            return f"{names}; whether they are of the same data is not recorded"
        unknown = sorted(key.partition(":")[2] for key in self.classes - kept.gone)
        if unknown and not others:
            what = "class " + unknown[0] if len(unknown) == 1 else "classes " + ", ".join(unknown)
            return f"whether it was trained on {what}, forgotten without data, is not recorded"
        return None

    def _is_entry(self, folder: Path) -> bool:
        """Whether a folder is an entry of a bank, and no run that lies where a bank was said to be."""
        bank = (self.bank / BANK_KEYS).is_dir() and _HASH.fullmatch(folder.name) is not None
        return bank and not any((folder / name).exists() for name in ("run.json", SPLIT, CONFIG))

    def _with_its_record(self, path: Path, name: str) -> None:
        for side in (path.with_name(path.name + TRAINED), path.with_suffix(".json")):
            if side.is_file() and name.startswith(("stage", "shard")):
                self.found.take(side, "belongs to it")
        entry = path.parent / ENTRY
        if entry.is_file():
            self.found.take(entry, "belongs to it")
