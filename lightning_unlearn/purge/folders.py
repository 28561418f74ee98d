"""Where runs and bank lie, and what the configurations of runs say of their data."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import yaml

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.files import LOCK_NAME

__all__ = ["CONFIG", "Folders", "SameData", "config_of", "dataset_of", "entries_below"]

CONFIG = "config.yaml"
# Arguments of data sets that say where the training part lies.
_TRAINING = ("train", "root")


@dataclass(frozen=True)
class Folders:
    """Where to look.

    Attributes:
        runs: Folder of the runs, resolved.
        bank: Folder of originals and references, resolved; it need not exist.
    """

    runs: Path
    bank: Path

    @classmethod
    def of(cls, run: Path, runs: Path | None, bank: Path | None) -> "Folders":
        """Find the folders that belong to a run, from whatever working folder.

        Args:
            run: The run.
            runs: Folder of the runs; None: the `runs` that the run lies in, or else that of the working folder.
            bank: The bank; None: `bank` in the folder of the runs.

        Returns:
            The folders.

        Raises:
            ConfigError: A folder that was given is none, or nothing says where the runs are.
        """
        for option, given in (("--runs", runs), ("--bank", bank)):
            if given is not None and not given.is_dir():
                raise ConfigError(f"{option} is {given}, which is no folder. Give the folder, or leave {option} out.")
        if runs is None:
            runs = next((parent for parent in run.resolve().parents if parent.name == "runs"), Path("runs"))
            if not runs.is_dir():
                raise ConfigError(
                    f"{run} lies in no folder called runs, and there is none here, so nothing says where earlier runs are. "
                    "Give their folder: --runs DIR."
                )
        return cls(runs.resolve(), (runs / "bank" if bank is None else bank).resolve())

    def outermost(self, run: Path) -> list[Path]:
        """The folders to look through, each file once.

        Args:
            run: The run, resolved.

        Returns:
            Folders of which none lies in another.
        """
        places = [place for place in (self.runs, self.bank, run) if place.is_dir()]
        return [p for p in dict.fromkeys(places) if not any(other != p and p.is_relative_to(other) for other in places)]

    def resolve(self, text: str) -> Path:
        """What a path in the configuration of a run meant: seen from the folder that holds the runs, or else from here.

        Args:
            text: The path.

        Returns:
            It, resolved; it need not exist.
        """
        path = Path(text).expanduser()
        seen = self.runs.parent / path
        return (seen if seen.exists() or not path.exists() else path).resolve()


def entries_below(place: Path) -> Iterator[Path]:
    """All files below a folder, and links to folders, which are not followed.

    Args:
        place: The folder.

    Yields:
        Their paths.
    """
    for base, folders, files in os.walk(place):
        folders.sort()
        yield from (path for name in folders if (path := Path(base, name)).is_symlink())
        yield from (Path(base, name) for name in sorted(files) if name != LOCK_NAME)


def config_of(folder: Path) -> dict[str, object]:
    """The configuration of a run.

    Args:
        folder: Its folder.

    Returns:
        It; empty where it cannot be read.
    """
    try:
        content = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def dataset_of(folder: Path) -> object:
    """The data set in the configuration of a run.

    Args:
        folder: Its folder.

    Returns:
        Its class and arguments; None where it cannot be read.
    """
    data = config_of(folder).get("data")
    return data.get("dataset") if isinstance(data, dict) else None


class SameData(Enum):
    """Whether two runs name the same data: in other words perhaps, a path from elsewhere, or with another size."""

    YES = "yes"
    PERHAPS = "perhaps"
    NO = "no"

    @classmethod
    def of(cls, first: object, second: object, folders: Folders, place: str = "") -> "SameData":
        """Compare what configurations say.

        Args:
            first: Data set of a run, as `dataset_of` gives it.
            second: That of another one.
            folders: What paths are seen from.
            place: Where the training part of the other one lay when it ran, where that is recorded.

        Returns:
            `NO` for training parts that lie elsewhere, and for another class without such a place.
        """
        one, other = (_resolved(dataset, folders) for dataset in (first, second))
        if one == other:
            return cls.YES
        places, others = (set(_training(dataset)) for dataset in (one, other))
        others |= {place} - {""}
        if places or others:
            return cls.PERHAPS if places & others else cls.NO
        return cls.PERHAPS if _class_of(one) == _class_of(other) else cls.NO


def _resolved(node: object, folders: Folders) -> object:
    """The same with every text as a path would be, but for names of classes without their modules."""
    if isinstance(node, dict):
        return {
            key: str(value).rpartition(".")[2] if key == "class_path" else _resolved(value, folders)
            for key, value in node.items()
            if value is not None and value != {}
        }
    if isinstance(node, list):
        return [_resolved(value, folders) for value in node]
    return str(folders.resolve(node)) if isinstance(node, str) and node else node


def _training(node: object) -> Iterator[str]:
    """The texts that say where the training part lies."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key in _TRAINING and isinstance(value, str):
            yield value
        else:
            yield from _training(value)


def _class_of(node: object) -> object:
    return node.get("class_path") if isinstance(node, dict) else None
