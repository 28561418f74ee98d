"""Name what lies outside the searched folders: checkpoints that requests started from, and the user's data."""

from collections.abc import Iterator
from pathlib import Path

from lightning_unlearn.purge.folders import CONFIG, Folders, config_of, dataset_of
from lightning_unlearn.purge.found import Purge

__all__ = ["name_data", "name_origins"]


def name_origins(found: Purge, folders: Folders) -> None:
    """Name the checkpoints elsewhere that the run and those before it started from.

    Args:
        found: What was found so far; it is added to.
        folders: Where runs and bank lie.
    """
    folder: Path | None = found.run
    seen: set[Path] = set()
    while folder is not None and folder not in seen and (folder / CONFIG).is_file():
        seen.add(folder)
        start = config_of(folder).get("checkpoint")
        path = folders.resolve(start) if isinstance(start, str) and start not in ("", "none") else None
        if path is not None and not any(path.is_relative_to(place) for place in found.searched):
            what = "the checkpoint that a request started from"
            where = "lies outside the folders of runs and bank" if path.is_file() else "is not where it was: moved or deleted?"
            found.leave(path, f"{what}; it {where}")
        folder = None if path is None else path.parent


def name_data(found: Purge, folders: Folders, place: str) -> None:
    """Name the user's own data.

    Args:
        found: What was found so far; it is added to.
        folders: Where runs and bank lie.
        place: Folder of the training part, where the run's split knows it: keys mean files there, and nowhere else.
    """
    dataset = dataset_of(found.run)
    training = Path(place) if place else _training_of(dataset, folders)
    for path in dict.fromkeys([*([training] if training else []), *(folders.resolve(text) for text in _texts(dataset))]):
        if path == training and path.is_dir():
            there = sorted(key for key in found.forgotten if (path / key).is_file())
            why = f"your data: {len(there)} of the {len(found.forgotten)} forgotten files are there"
            found.leave(path, why if there else "your data: no forgotten file is there by its key", there)
        elif path == training and not path.exists():
            found.leave(path, "your data: they are not where they were, and could not be looked at")
        elif path.is_file():
            found.leave(path, "your data: whether forgotten samples are in it was not looked at")


def _training_of(dataset: object, folders: Folders) -> Path | None:
    arguments = dataset.get("init_args") if isinstance(dataset, dict) else None
    train = arguments.get("train") if isinstance(arguments, dict) else None
    return folders.resolve(train) if isinstance(train, str) and train else None


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
