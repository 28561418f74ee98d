"""What a search found: files that can be deleted, and those that can only be named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Finding", "Purge"]


@dataclass(frozen=True)
class Finding:
    """A file or a place that holds something of the forgotten samples, or may.

    Attributes:
        path: Where it is.
        size: Bytes.
        why: What it holds.
        names: Samples in it, for the screen alone.
    """

    path: Path
    size: int
    why: str
    names: tuple[str, ...] = ()


@dataclass
class Purge:
    """What was found.

    Attributes:
        run: The run whose requests count; its checkpoint stays.
        forgotten: Keys of all samples that it and the runs before it were asked to forget.
        withdrawn: Those of them that its models were never trained on.
        deletable: What `delete` takes away.
        left: What it does not: it lies elsewhere, nothing says what it was trained on, or somebody uses it.
        searched: Folders that were looked through.
    """

    run: Path
    forgotten: frozenset[str]
    withdrawn: frozenset[str] = frozenset()
    deletable: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    searched: list[Path] = field(default_factory=list)

    def take(self, path: Path, why: str) -> None:
        """Add what can be deleted, once.

        Args:
            path: The file.
            why: What it holds.
        """
        if all(path != finding.path for finding in self.deletable):
            self.deletable.append(Finding(path, _size(path), why))

    def leave(self, path: Path, why: str, names: Sequence[str] = ()) -> None:
        """Add what can only be named.

        Args:
            path: The file or folder.
            why: What it holds or may hold.
            names: Samples in it.
        """
        self.left.append(Finding(path, _size(path), why, tuple(names)))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0
