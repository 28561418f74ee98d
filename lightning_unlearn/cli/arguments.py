"""What the command line itself understands; everything else goes to the parser of the command."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightning_unlearn.cli.commands import COMMANDS, PLAIN, RESUMABLE, WITH_RUN, known_command
from lightning_unlearn.exceptions import ConfigError

__all__ = ["Call", "read_call"]

_CONFIG = ("-c", "--config")
_WITH_VALUE = (*_CONFIG, "--name", "--output", "--run", "--resume")
_HELP = {"-h": "short", "--help": "short", "--help.all": "all"}


@dataclass
class Call:
    """One call of the command line.

    Attributes:
        command: Its name; None where only `--help` or `--version` was given.
        arguments: What the command's own parser reads, configs included, in the given order.
        configs: The configs among them.
        name: Folder below `runs`, and the method's name in the report.
        output: Folder of the run.
        run: An earlier run: to judge, to go on from with another request, or to train a reference of.
        resume: Folder of an interrupted run.
        help: Whether help is wanted, and how much of it.
        version: Whether the version is wanted.
        debug: Whether errors show where they come from.
    """

    command: str | None = None
    arguments: list[str] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    name: str | None = None
    output: str | None = None
    run: str | None = None
    resume: str | None = None
    help: Literal["short", "all"] | None = None
    version: bool = False
    debug: bool = False


def read_call(arguments: Sequence[str]) -> Call:
    """Split a command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The call.

    Raises:
        ConfigError: The command is missing or unknown, or an argument lacks its value or does not belong to the command.
    """
    call = Call()
    left = list(arguments)
    while left:
        token = left.pop(0)
        option, has_value, value = token.partition("=")
        if token in _HELP:
            call.help = "all" if "all" in (_HELP[token], call.help) else "short"
        elif token == "--debug":
            call.debug = True
        elif token == "--version" and call.command is None:
            call.version = True
        elif option in _WITH_VALUE and call.command not in PLAIN:
            if not has_value:
                if not left or (left[0].startswith("-") and len(left[0]) > 1):
                    raise ConfigError(f"{option} needs a value: {option} {_example(option)}.")
                value = left.pop(0)
            _store(call, option, value)
        elif call.command is None and not token.startswith("-") and (token in COMMANDS or not _has_option(call)):
            call.command = known_command(token)
        else:
            call.arguments.append(token)
    return _checked(call)


def _store(call: Call, option: str, value: str) -> None:
    if option in _CONFIG:
        call.configs.append(value)
        call.arguments += ["--config", value]
    else:
        setattr(call, option.removeprefix("--"), value)


def _has_option(call: Call) -> bool:
    """Whether an argument was given whose value the next word may be."""
    return any(token.startswith("--") and token != "--config" for token in call.arguments)


def _checked(call: Call) -> Call:
    if call.command is None:
        if not (call.help or call.version):
            given = f"{call.arguments[0]!r} was given without a command" if call.arguments else "No command was given"
            raise ConfigError(f"{given}; needed: one of {', '.join(COMMANDS)}. See lightning-unlearn --help.")
        return call
    if call.resume is not None and call.command not in RESUMABLE:
        raise ConfigError(
            f"{call.command} cannot be resumed; --resume belongs to {' and '.join(RESUMABLE)}."
            + (" Run it again: finished cells are kept." if call.command == "benchmark" else "")
        )
    if call.run is not None and call.command not in WITH_RUN:
        raise ConfigError(f"--run belongs to {', '.join(WITH_RUN)}, not to {call.command}. Give the run's files by name.")
    if call.run is not None and call.resume is not None:
        raise ConfigError("--run was given together with --resume, which goes on as the run began. Give one.")
    if call.resume is not None and call.name is not None:
        raise ConfigError("--name was given together with --resume, which goes on in its own folder. Give one.")
    if call.output is not None and (call.name is not None or call.resume is not None):
        raise ConfigError("--output was given together with --name or --resume, which choose the folder too. Give one.")
    return call


def _example(option: str) -> str:
    return {"-c": "data/digits", "--config": "data/digits", "--name": "first", "--output": "runs/first"}.get(
        option, "runs/unlearn/1"
    )
