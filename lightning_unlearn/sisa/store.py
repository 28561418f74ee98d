"""Checkpoints of slices in a folder beside the model's, and how the next request's folder takes their place."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from torch import Tensor, nn

from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.files import write_atomic, write_text_atomic
from lightning_unlearn.sisa.recipe import SliceRecipe
from lightning_unlearn.weights.checkpoint import read_weights, save_weights
from lightning_unlearn.weights.trained_on import Kept, record_beside

__all__ = ["FOLDER", "Manifest", "SliceStore", "settle_slices", "successor_of"]

log = logging.getLogger(__name__)

FOLDER, MANIFEST = "slices", "slices.json"
_PATTERN = "shard-*-slice-*"


@dataclass(frozen=True)
class Manifest:
    """What a folder of slices is. It names other folders as seen from itself: runs may be moved together.

    Attributes:
        recipe: How they were trained.
        removed: Keys of all samples that were deleted so far, sorted.
        previous: The folder of slices that this one takes the place of, until its checkpoints have been deleted.
        checkpoint: Name of the ensemble's checkpoint beside that folder.
        next: The folder of slices that takes the place of this one.
    """

    recipe: SliceRecipe
    removed: tuple[str, ...] = ()
    previous: str | None = None
    checkpoint: str | None = None
    next: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `SliceStore.write` wrote.

        Args:
            path: The file.

        Returns:
            The manifest.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            recipe = SliceRecipe(**content.pop("recipe"))
            return cls(recipe, tuple(content.pop("removed")), **content)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}. Needed: the slices that fit left there.") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Restore it together with its folder, or fit anew.") from None


class SliceStore:
    """A folder of checkpoints, one per slice, named by all that their weights depend on.

    Args:
        folder: The folder; made when something is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()

    @classmethod
    def beside(cls, checkpoint: str | Path) -> Self:
        """The store that belongs to a checkpoint of an ensemble.

        Args:
            checkpoint: The checkpoint.

        Returns:
            The store; it need not exist.
        """
        return cls(Path(checkpoint).parent / FOLDER)

    @property
    def exists(self) -> bool:
        """Whether there is a manifest."""
        return (self.folder / MANIFEST).is_file()

    def read(self) -> Manifest:
        """The manifest; see `Manifest.read`."""
        return Manifest.read(self.folder / MANIFEST)

    @property
    def successor(self) -> "SliceStore | None":
        """The store that takes the place of this one, also where it is not found; None where no request was begun."""
        following = self.read().next
        return None if following is None else SliceStore(self.folder / following)

    def write(self, manifest: Manifest) -> None:
        """Write the manifest, whole.

        Args:
            manifest: The manifest.
        """
        write_text_atomic(self.folder / MANIFEST, json.dumps(asdict(manifest), indent=1))

    def path(self, name: str) -> Path:
        """The checkpoint of a slice.

        Args:
            name: Name of the slice.

        Returns:
            The file; it need not exist.
        """
        return self.folder / f"{name}.ckpt"

    def has(self, name: str) -> bool:
        """Whether a slice has its checkpoint.

        Args:
            name: Name of the slice.

        Returns:
            True where it has.
        """
        return self.path(name).is_file()

    def load(self, name: str) -> dict[str, Tensor]:
        """Weights of a slice.

        Args:
            name: Name of the slice.

        Returns:
            The weights by name.
        """
        return read_weights(self.path(name))[0]

    def save(self, name: str, network: nn.Module, trained: Kept) -> None:
        """Keep a slice.

        Args:
            name: Name of the slice.
            network: The member after its training.
            trained: What it was trained on.
        """
        record_beside(self.path(name), trained)
        save_weights(self.path(name), network.state_dict(), {})

    def take(self, name: str, other: "SliceStore", trained: Kept) -> None:
        """Take a slice over from another store: a link where the file system has them, else a copy.

        Args:
            name: Name of the slice.
            other: The store that has it.
            trained: What it was trained on.
        """
        record_beside(self.path(name), trained)
        try:
            os.link(other.path(name), self.path(name))
        except FileExistsError:
            return
        except OSError:
            content = other.path(name).read_bytes()
            write_atomic(self.path(name), partial(_put, content))

    def keep_only(self, names: Sequence[str]) -> None:
        """Delete the checkpoints of all other slices.

        Args:
            names: Names of the slices that stay.
        """
        # The lists of keys, and what a killed process was just writing, go too.
        for path in [*self.folder.glob(_PATTERN), *self.folder.glob(f".{_PATTERN}")]:
            if path.name.partition(".")[0] not in names:
                path.unlink(missing_ok=True)

    def check_free(self, successor: "SliceStore") -> None:
        """Refuse a request where another one has taken the place of this store, or is about to, wherever that one is now.

        Args:
            successor: The store of the request.

        Raises:
            ConfigError: There is another successor, or it is this very store.
        """
        if successor.folder == self.folder:
            raise ConfigError(f"{successor.folder.parent} holds the slices that the request starts from. Give another output.")
        other = self.successor
        if other is None or other.folder == successor.folder:
            return
        run, manifest = other.folder.parent, self.folder / MANIFEST
        if not other.exists:
            raise ConfigError(
                f"Another request on {self.folder.parent} was begun in {run}, and no slices lie there now. Put that folder "
                f'back and finish it with --resume {run}; if it was removed for good, set "next" to null in {manifest}.'
            )
        if (run / "unlearned.ckpt").exists():
            raise ConfigError(
                f"Samples of {self.folder.parent} were deleted already: its place was taken by {run}. Give --checkpoint {run}."
            )
        raise ConfigError(
            f"Another request on {self.folder.parent} was begun in {run}. Finish it with --resume {run}; or remove that "
            f'folder, and set "next" to null in {manifest}.'
        )

    def begin(self, successor: "SliceStore", manifest: Manifest, checkpoint: str) -> None:
        """Let a request's store begin to take the place of this one; nothing is deleted yet.

        Args:
            successor: The store of the request.
            manifest: Its manifest.
            checkpoint: Name of the ensemble's checkpoint beside this store.
        """
        before, after = (os.path.relpath(a.folder, b.folder) for a, b in ((self, successor), (successor, self)))
        successor.write(replace(manifest, previous=before, checkpoint=checkpoint))
        self.write(replace(self.read(), next=after))

    def finish(self) -> None:
        """Delete the checkpoints of the store that this one takes the place of; again, where it was interrupted.

        Both manifests must name each other, so that a folder from elsewhere can have nothing deleted.

        Raises:
            CheckpointError: They do not, or that store is not found. What is to be deleted stays noted.
        """
        manifest = self.read()
        if manifest.previous is None:
            return
        before, run = SliceStore(self.folder / manifest.previous), self.folder.parent
        following = before.successor if before.exists else None
        if following is None or following.folder != self.folder:
            wrong = "names another successor, or none" if before.exists else "is not found"
            raise CheckpointError(
                f"{run} takes the place of {before.folder.parent}, whose checkpoints saw deleted samples; but {before.folder} "
                f"{wrong}, and nothing was deleted. Put both folders back to where they were, and go on with --resume {run}. "
                f'If none of those checkpoints is left, set "previous" to null in {self.folder / MANIFEST}.'
            )
        # All of them: what is not outdated lies here, and would be forgotten there when a later request deletes it here.
        before.keep_only([])
        if manifest.checkpoint and Path(manifest.checkpoint).name == manifest.checkpoint:
            (before.folder.parent / manifest.checkpoint).unlink(missing_ok=True)
        log.info("deleted in %s: the ensemble and its slices, whose place %s takes", before.folder.parent, run)
        self.write(replace(manifest, previous=None, checkpoint=None))


def successor_of(path: str | Path) -> Path | None:
    """The run that took the place of a deleted checkpoint.

    Args:
        path: The checkpoint, or the folder of its run.

    Returns:
        The folder of the run; None where there is none.

    Raises:
        CheckpointError: The run is not found.
    """
    given = Path(path)
    for folder in (given, given / "checkpoints", given.parent):
        store = SliceStore(folder / FOLDER)
        following = store.successor if store.exists else None
        if following is None:
            continue
        run = following.folder.parent
        if not following.exists:
            raise CheckpointError(
                f"{run} takes the place of {path}, and no slices lie there now. Put that folder back, or give --checkpoint "
                "with the place where it is now."
            )
        return run
    return None


def settle_slices(folder: Path) -> None:
    """Delete what a finished request has taken the place of; nothing where the run is none of a `Sisa`.

    Args:
        folder: The folder of the run, which holds its unlearned checkpoint.
    """
    store = SliceStore(folder / FOLDER)
    if store.exists:
        store.finish()


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
