"""What a call takes from an earlier run that `--run` names."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from lightning_unlearn.cli.configs import Tree, tree_without
from lightning_unlearn.cli.job import OWN_WEIGHTS, newest_checkpoint
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.data.forget import ForgetRule, WholeClasses
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.requests.history import newer_run
from lightning_unlearn.requests.ledger import LEDGER, UNLEARNED, entries_in
from lightning_unlearn.sisa.store import successor_of

log = logging.getLogger(__name__)

__all__ = ["advice_without_data", "another_request", "checkpoint_of", "files_of", "name_beside"]


def checkpoint_of(folder: Path, commands: tuple[str, ...] = ("fit", "unlearn")) -> Path:
    """The checkpoint that a run ended with.

    Args:
        folder: The run's folder.
        commands: Commands whose runs will do.

    Returns:
        The file.

    Raises:
        ConfigError: It is a run of another command.
        CheckpointError: It has none yet.
    """
    command = RunFolder(folder).record().get("command")
    if command not in commands:
        raise ConfigError(f"{folder} is a run of {command}; needed: one of {' or '.join(commands)}.")
    if command == "fit":
        newest = newest_checkpoint(folder)
        if newest is None:
            raise CheckpointError(f"{folder} holds no checkpoint yet. Finish the run, or give --checkpoint.")
        return newest
    if not (folder / UNLEARNED).is_file():
        if entries := entries_in(folder / LEDGER):
            newer = successor_of(folder) or newer_run(folder, entries[-1].after)
            on = "Restore it from a backup" if newer is None else f"Go on from {newer}"
            raise CheckpointError(f"{folder} is finished, and its checkpoint was deleted (purge). {on}.")
        raise CheckpointError(f"{folder} is not finished. Go on with: unlearn --resume {folder}")
    return folder / UNLEARNED


def files_of(run: str, given: Mapping[str, object]) -> dict[str, object]:
    """What a run is judged by: its checkpoint, and what that can be compared with.

    Args:
        run: The run's folder.
        given: What the call gives itself, which counts more.

    Returns:
        Arguments of `evaluate`.
    """
    folder = RunFolder(Path(run))
    found: dict[str, object] = {"checkpoint": given["checkpoint"] or str(checkpoint_of(folder.path))}
    if folder.record().get("command") == "unlearn":
        saved = folder.config()
        start = saved.get("checkpoint")
        if start not in (None, OWN_WEIGHTS) and not Path(str(start)).is_file():
            log.info("note: the original %s is gone, so nothing is compared with it.", start)
            start = None
        found["original"] = given["original"] or (None if start == OWN_WEIGHTS else start)
        found["references"] = given["references"] or saved.get("references")
    return found


def advice_without_data(arguments: Mapping[str, object], rule: ForgetRule | None) -> str:
    """What to call where a model that forgot without data is to be judged, which needs some.

    Args:
        arguments: Arguments of `evaluate`.
        rule: What was forgotten.

    Returns:
        The error.
    """
    given = [f"--{name} {arguments[name]}" for name in ("checkpoint", "original") if arguments.get(name)]
    classes = f"[{', '.join(map(str, rule.classes))}]" if isinstance(rule, WholeClasses) else "[...]"
    return (
        "NoData has no samples to judge a model by. Where data are, give them, with the model that was trained and the same "
        f"classes: evaluate -c data/... -c model/... {' '.join(given)} --data.forget WholeClasses "
        f"--data.forget.classes {classes}"
    )


def another_request(command: str, run: Path, layer: Tree) -> tuple[Tree, str | None]:
    """The configuration of a run for what comes after it.

    `unlearn` goes on from its checkpoint with another request, `detect` looks at that checkpoint. `fit` trains a reference of
    its request: on what it retained.

    Args:
        command: The command of the call.
        run: The earlier run's folder.
        layer: Its configuration, as far as the command takes it.

    Returns:
        The configuration, and the name of the method in it, where it has one.
    """
    name = None if layer.get("name") is None else str(layer["name"])
    data = layer.get("data")
    if command == "evaluate" or not isinstance(data, dict):
        return layer, name
    # The request that the run has done, what it was for, and its references are not those of the next one.
    layer = tree_without(layer, "name", "references", "goal")
    left = tree_without(data, "forget", "forget_seed")
    if command in ("unlearn", "detect"):
        return {**layer, "data": left, "checkpoint": str(checkpoint_of(run))}, name
    checkpoint_of(run, ("unlearn",))
    return {**layer, "data": {**left, "view": "retain"}}, name


def name_beside(run: str | None) -> str | None:
    """The name under which the next run lies beside an earlier one.

    Args:
        run: The earlier run's folder; None: there is none.

    Returns:
        `x` for `runs/x/3`; None where it does not lie below `runs`.
    """
    if run is None:
        return None
    *parts, last = Path(os.path.relpath(run, "runs")).parts
    return "/".join(parts) if parts and ".." not in parts and last.isdecimal() else None
