"""Arguments as people type them: one value for a list of one, and a place in a list that the parser does not know."""

import inspect
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.config.shipped import find_config
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.trainer import UnlearningTrainer

__all__ = ["as_list", "list_arguments", "refuse_cut_value", "refuse_single_stage", "sources"]

_ONE_STAGE = re.compile(r"--stages[.\[]\d")


def list_arguments(command: str) -> set[str]:
    """Arguments of a verb that take lists of texts or numbers.

    Args:
        command: The verb.

    Returns:
        Their names.
    """
    parameters = inspect.signature(getattr(UnlearningTrainer, command)).parameters.values()
    return {p.name for p in parameters if str(p.annotation).startswith(("list[str]", "list[int]"))}


def as_list(value: str) -> str:
    """A typed value as a list.

    Args:
        value: A list in brackets, `null`, one value, or several with commas between them.

    Returns:
        The same; of one value a list of it. The path of a file is one value.
    """
    if value.startswith(("[", "null")):
        return value
    parts = [value] if Path(value).exists() else [part.strip() for part in value.split(",") if part.strip()]
    return json.dumps([int(part) if part.isdecimal() else part for part in parts])


def refuse_cut_value(tokens: Sequence[str]) -> None:
    """Say that quotes are missing where a shell cut a list or a mapping at its spaces: `--methods [a, b]`.

    Args:
        tokens: An argument and what follows it.

    Raises:
        ConfigError: A bracket is open at the end of its value, and one is closed further on.
    """
    option, is_joined, value = tokens[0].partition("=")
    following = list(tokens[1:])
    if not option.startswith("--"):
        return
    if not is_joined:
        value = following.pop(0) if following else ""
    if not value.startswith(("[", "{")) or not _is_open(value):
        return
    whole = value
    while _is_open(whole) and following and not following[0].startswith("--"):
        whole = f"{whole} {following.pop(0)}"
    raise ConfigError(
        f"{option} is {value!r}, the beginning of a list that the shell cut at a space. Put quotes around it: "
        f'{option} "{whole}".'
    )


def _is_open(value: str) -> bool:
    return value.count("[") > value.count("]") or value.count("{") > value.count("}")


def refuse_single_stage(option: str) -> None:
    """Say what works in place of `--stages.0.max_epochs`, which the parser would take for something else.

    Args:
        option: An argument's name, dashes included.

    Raises:
        ConfigError: It names a place in the list of stages.
    """
    if _ONE_STAGE.match(option):
        raise ConfigError(
            f"{option}: single stages have no argument on the command line. What works: print the whole config with "
            "--print_config, or copy the method's file, change `stages` in it, and give it with -c."
        )


def sources(call: Call) -> tuple[list[Path], list[str]]:
    """Where what a parser refuses may stand.

    Args:
        call: The call.

    Returns:
        Its configs, and the other texts that were typed.
    """
    typed = [text for before, text in pairwise(["", *call.arguments]) if "--config" not in (before, text)]
    return [find_config(name) for name in call.configs], typed
