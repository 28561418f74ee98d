"""Arguments as people type them: one value for a list of one, and a place in a list that the parser does not know."""

import inspect
import json
import re

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.trainer import UnlearningTrainer

__all__ = ["as_list", "list_arguments", "refuse_single_stage"]

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
        value: A list in brackets, `null`, or one value.

    Returns:
        The same; of one value a list of it.
    """
    return value if value.startswith(("[", "null")) else json.dumps([int(value) if value.isdecimal() else value])


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
