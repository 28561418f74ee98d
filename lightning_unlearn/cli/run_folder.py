"""The folder of a run: numbered, never written over, gone again where the start failed."""

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lightning_unlearn.cli.configs import Tree, parse_config, read_config, tree_without
from lightning_unlearn.data.saved_split import SPLIT
from lightning_unlearn.exceptions import ConfigError, RunError
from lightning_unlearn.files import lock_folder, write_text_atomic
from lightning_unlearn.requests.ledger import BEGUN

__all__ = ["RUN_VARIABLE", "RunFolder", "check_same"]

# Processes that Lightning starts for further devices learn from it which folder the first one took.
RUN_VARIABLE = "LIGHTNING_UNLEARN_RUN"
CONFIG, START, LOCK = "config.yaml", "run.json", ".lock"
# Written before anything is computed; the last two by unlearn, of its request.
_OF_THE_START = (CONFIG, START, LOCK, SPLIT, BEGUN)
_HEADER = "# Saved by `lightning-unlearn {command}`; give it back with -c to this command or to another one.\n"


def _runs_in(folder: Path) -> str:
    """What to say of a folder that is no run but holds some, whose number was forgotten; else nothing."""
    runs = sorted((path.parent for path in folder.glob(f"*/{START}")), key=lambda path: (len(path.name), path.name))
    return f"it holds {', '.join(run.name for run in runs[-12:])}. Give one of them, such as {runs[-1]}." if runs else ""


def _launched_first() -> bool:
    """Whether no launcher calls this process another than the first rank; as `ranks.is_first`, which takes torch to import."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


@dataclass
class RunFolder:
    """A run's folder.

    Attributes:
        path: The folder.
        resumed: Whether it holds an interrupted run that goes on.
        first: Whether this process writes to it; the other ranks do not.
        made: Folders that were made for it, the outermost first.
        shared: Whether several runs may write to it, one after another.
    """

    path: Path
    resumed: bool = False
    first: bool = field(default_factory=_launched_first)
    made: tuple[Path, ...] = ()
    shared: bool = False

    @classmethod
    def take(cls, command: str, name: str | None = None, output: str | None = None, resume: str | None = None) -> "RunFolder":
        """Take the folder of a run.

        Args:
            command: Its command.
            name: The run is the next free number below `runs/<name>`; None: below `runs/<command>`.
            output: The folder itself, empty or not there yet.
            resume: Folder of an interrupted run.

        Returns:
            The folder; it exists.

        Raises:
            ConfigError: The folder is in use for something else, or several processes could not agree on a number.
            RunError: It cannot be made.
        """
        given = os.environ.get(RUN_VARIABLE) if "LOCAL_RANK" in os.environ else None
        if given is not None:
            return cls(Path(given), resume is not None, first=False)
        if resume is not None:
            path = Path(resume)
            if not (path / START).is_file():
                told = _runs_in(path) or f"it holds no {START}. Give the folder of a run."
                raise ConfigError(f"{resume} is no run that can be resumed: {told}")
            return cls(path, resumed=True)
        if output is not None:
            return cls(Path(output), made=_make(Path(output)) if _launched_first() else ())
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise ConfigError("Processes that torchrun or srun started cannot agree on a run's number; give --output.")
        parent = Path("runs", *_parts(name or command))
        made = _make_parents(parent)
        while True:
            path = parent / str(max((int(p.name) for p in parent.glob("*") if p.name.isdecimal()), default=0) + 1)
            try:
                path.mkdir()
            except FileExistsError:
                continue  # another process was faster
            except OSError as error:
                raise RunError(f"Cannot make {path}: {error.strerror}. Choose another folder with --output.") from None
            return cls(path, made=(*made, path))

    def announce(self) -> None:
        """Let the processes of further devices know the folder."""
        os.environ[RUN_VARIABLE] = str(self.path.resolve())

    def start(self, command: str, config: Tree, record: Tree) -> None:
        """Write down what the run is.

        Args:
            command: Its command.
            config: The full configuration.
            record: What it depends on beyond that, such as hashes of its data.

        Raises:
            ConfigError: Another run was faster to begin in the folder.
        """
        if self.first:
            if (self.path / START).exists() and not self.shared:
                raise ConfigError(f"{self.path} holds another run by now, and nothing is written over. Choose another folder.")
            text = yaml.safe_dump({"command": command, **config}, sort_keys=False, allow_unicode=True)
            write_text_atomic(self.path / CONFIG, _HEADER.format(command=command) + text)
            write_text_atomic(self.path / START, json.dumps({"command": command, **record}, indent=1) + "\n")

    def check(self, command: str, config: Tree, record: Tree) -> None:
        """See that an interrupted run goes on as what it was.

        Args:
            command: The command that resumes it.
            config: The full configuration now.
            record: What the run depends on now.

        Raises:
            ConfigError: Another command began it, or something has changed.
        """
        if self.first:
            # Through YAML, where a tuple is a list.
            check_same(self.path, self.config(), parse_config(yaml.safe_dump(config), "the configuration"))
            before = self.record()
            if before.pop("command", None) != command:
                raise ConfigError(f"{self.path} is no run of {command}. Resume it with the command that began it.")
            check_same(self.path, before, json.loads(json.dumps(record)))

    def config(self) -> Tree:
        """The configuration that the run saved.

        Returns:
            Plain values, without `command`.
        """
        return tree_without(read_config(self.path / CONFIG), "command")

    def record(self) -> Tree:
        """What the run depended on when it began.

        Returns:
            The record, with its `command`.

        Raises:
            ConfigError: There is no readable record.
        """
        try:
            record = json.loads((self.path / START).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            told = _runs_in(self.path) or f"its {START} cannot be read ({error}). Give the folder of a run."
            raise ConfigError(f"{self.path} is no run: {told}") from None
        if not isinstance(record, dict):
            raise ConfigError(f"{self.path} is no run: its {START} is damaged. Give the folder of a run.")
        return record

    @property
    def begun(self) -> bool:
        """Whether a run was written down in it."""
        return (self.path / START).is_file()

    def discard_if_empty(self) -> None:
        """Remove what was made for a run that has nothing to show, so that a failed start leaves no trace."""
        if self.resumed or self.shared or not self.first or not self.path.is_dir():
            return
        files = [path for path in self.path.rglob("*") if not path.is_dir()]
        if any(path.parent != self.path or path.name not in _OF_THE_START for path in files):
            return
        for path in files:
            path.unlink()
        # An `--output` folder that was there before is not in `made` and stays.
        with contextlib.suppress(OSError):
            for path in sorted(self.path.rglob("*"), reverse=True):
                path.rmdir()
            for path in reversed(self.made):
                path.rmdir()


def _same_class(before: object, now: object) -> bool:
    """Whether two class paths name one class, as a package and the module in it do."""
    from lightning_unlearn.config.introspection import class_at  # imports jsonargparse, which `report` does without

    kind = class_at(str(before))
    return kind is not None and kind is class_at(str(now))


def check_same(folder: Path, before: object, now: object, key: str = "") -> None:
    """Refuse to go on where something has changed.

    Args:
        folder: The run, for the message.
        before: Plain values when it began.
        now: Plain values now.
        key: Where they stand.

    Raises:
        ConfigError: Something differs; the first difference is named.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            check_same(folder, before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now and not (key.endswith("class_path") and _same_class(before, now)):
        what = f"{key} was {_short(before)} and is now {_short(now)}"
        raise ConfigError(f"{folder} cannot be resumed: {what}. Resume without changes, or start a new run.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def _parts(name: str) -> tuple[str, ...]:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ConfigError(f"--name is {name!r}; needed: a name below runs/. For a folder elsewhere give --output.")
    return parts


def _make_parents(path: Path) -> tuple[Path, ...]:
    """Make a folder and its parents; those that were missing, the outermost first."""
    missing = [p for p in (path, *path.parents) if not p.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make {path}: {error.strerror}. Choose another folder with --output.") from None
    return tuple(missing)


def _make(path: Path) -> tuple[Path, ...]:
    """Make the folder that `--output` names."""
    if path.is_dir() and any(entry.name != LOCK for entry in path.iterdir()):
        if (path / LOCK).is_file():
            with lock_folder(path):  # says so where a run works in it, which emptying the folder would destroy
                pass
        remedy = f"Go on with --resume {path}" if (path / START).is_file() else "Empty it"
        raise ConfigError(f"{path} is not empty, and nothing is written over. {remedy}, or choose another folder.")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; needed: a folder for the run.")
    return _make_parents(path)
