"""Help that a person can read: the arguments that matter for this call, a line each."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.cli.commands import COMMANDS, MAY_TRAIN, RESUMABLE
from lightning_unlearn.cli.configs import first_line, method_names, read_config
from lightning_unlearn.cli.in_force import values_in_force
from lightning_unlearn.config.introspection import Argument, arguments_of, class_arguments, class_at
from lightning_unlearn.config.shipped import config_folder, config_names, find_config
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["command_help"]

_WIDTH, _HEIGHT = 100, 120
_NAMES = 30
_LONGEST = 24
_TRAINER = (
    *("accelerator", "devices", "strategy", "precision", "max_time"),
    *("gradient_clip_val", "logger", "callbacks", "enable_progress_bar"),
)
_MORE = "--data.dataset CLASS --help, or --data.forget CLASS --help, shows what a data set or a forget rule takes"
_OF_THE_CALL = (
    ("-c, --config NAME", "a layer of configuration, left to right: a path, or the name of a shipped file"),
    ("--name NAME", "the run goes to runs/NAME/1, runs/NAME/2 ..."),
    ("--output DIR", "the run goes to this folder"),
    ("--debug", "errors show where they come from"),
    ("--print_config", "print the full configuration and end"),
    ("--help.all", "every argument"),
)


_OF_A_RUN = {
    "evaluate": "take config, checkpoint, original and references from a run of fit or unlearn",
    "unlearn": "another request: go on from this run's checkpoint, with its data and method where no others are given",
    "fit": "train a reference of this run of unlearn: on what it retained",
    "detect": "take config and checkpoint from a run of fit or unlearn",
}


def command_help(command: str, parser: ArgumentParser, call: Call) -> str:
    """The help of a command, for the configs that are given.

    Args:
        command: Its name.
        parser: Its parser.
        call: The call.

    Returns:
        Text of at most 100 columns; where everything is asked for, what the parser says and then what the chosen classes take.
    """
    values = values_in_force(call)
    data, model = [*_chosen(values, "dataset", VisionData), *_chosen(values, "forget", ForgetRule)], _model(values)
    stages = _stages(values, call) if command == "unlearn" else []
    if call.help == "all":
        return "\n\n".join([parser.format_help().rstrip(), *(group.text(99) for group in (*data, *model, *stages))])
    arguments = {argument.name: _with(values, argument) for argument in arguments_of(parser)}
    # The folder of a benchmark is an argument of the call too.
    hidden = ("model", "stages", "name", "output")
    own = [a for name, a in arguments.items() if "." not in name and name not in hidden]
    length = ("max_epochs",) if command in MAY_TRAIN else ()
    groups = [
        _Group("the call", list(_of_the_call(command))),
        _Group("arguments (as --NAME)", [_entry(argument) for argument in own]),
        _Group(
            "data (as --data.NAME)", [_entry(a, "data.") for name, a in arguments.items() if name.startswith("data.")], _MORE
        ),
        *data,
        *model,
        *([_methods("shipped methods")] if command == "benchmark" else stages),
        _Group("trainer (as --trainer.NAME)", [_entry(arguments[f"trainer.{n}"], "trainer.") for n in (*length, *_TRAINER)]),
    ]
    if not call.configs:
        elsewhere = ("method/",) if command == "benchmark" else ("method/", "benchmark/", "prepare/")
        shipped = [name for name in config_names() if not name.startswith(elsewhere)]
        groups.append(_Group("shipped configs", [], ", ".join(shipped)))
    usage = f"usage: lightning-unlearn {command} [-c CONFIG ...] [--argument VALUE ...]"
    head = f"{usage}\n\n{textwrap.fill(COMMANDS[command], _WIDTH)}"
    # Two lines an argument; where there is no room, first methods by name alone, then one line in the last groups.
    text = "\n\n".join([head, *(group.text(2) for group in groups)])
    for last in range(len(groups), -1, -1):
        if text.count("\n") < _HEIGHT:
            break
        text = "\n\n".join([head, *(group.text(2 if i < last else 1, short=True) for i, group in enumerate(groups))])
    return text


@dataclass(frozen=True)
class _Group:
    """Arguments under a title: what is typed, and what it is."""

    title: str
    entries: Sequence[tuple[str, str]]
    note: str = ""
    # Whether names alone will do where there is little room.
    names_will_do: bool = False

    def text(self, lines: int, short: bool = False) -> str:
        """The group as text, each entry on so many lines at most."""
        parts = [f"{self.title}:", *(_wrapped(left, right, lines) for left, right in self.entries)]
        if short and self.names_will_do:
            names = ", ".join(left for left, _ in self.entries)
            parts[1:] = [textwrap.fill(names, _WIDTH, initial_indent="  ", subsequent_indent="  ")]
        if self.note:
            parts.append(textwrap.fill(self.note, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
        return "\n".join(parts)


def _wrapped(left: str, right: str, lines: int) -> str:
    if not right:
        # textwrap drops the first indent of no text.
        return f"  {left}"
    first = f"  {left:<{_NAMES}}" + ("" if len(left) < _NAMES else "  ")
    return textwrap.fill(
        right,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (_NAMES + 2),
        max_lines=lines,
        placeholder=" ...",
        break_on_hyphens=False,
    )


def _of_the_call(command: str) -> Iterable[tuple[str, str]]:
    if command == "benchmark":
        yield _OF_THE_CALL[0]
        yield "--name NAME", "cells and report go to runs/NAME; the same name again runs what is missing"
        yield "--output DIR", "they go to this folder"
    else:
        yield from _OF_THE_CALL[:3]
    if command in RESUMABLE:
        yield "--resume DIR", "go on with an interrupted run"
    if command in _OF_A_RUN:
        yield "--run DIR", _OF_A_RUN[command]
    yield from _OF_THE_CALL[3:]


def _with(values: Mapping[str, object], argument: Argument, prefix: str = "") -> Argument:
    """An argument with the value that the call gives in place of its default."""
    place = prefix + argument.name
    return replace(argument, default=values[place], required=False) if place in values else argument


def _of_class(kind: type, values: Mapping[str, object], prefix: str) -> list[Argument]:
    return [_with(values, argument, prefix) for argument in class_arguments(kind)]


def _chosen(values: Mapping[str, object], name: str, base: type) -> list[_Group]:
    """The arguments of a class that the call, or else a config, names for the data."""
    prefix = f"data.{name}."
    kind = class_at(str(values.get(f"data.{name}", "")), base)
    if kind is None:
        return []
    return [_Group(f"{kind.__name__} (as --{prefix}NAME)", [_entry(a) for a in _of_class(kind, values, prefix)])]


def _model(values: Mapping[str, object]) -> list[_Group]:
    given = values.get("model", "Classifier")
    kind = class_at(given if isinstance(given, str) else "Classifier", LightningModule)
    if kind is None:
        return []
    return [_Group(f"model: {kind.__name__} (as --model.NAME)", [_entry(a) for a in _of_class(kind, values, "model.")])]


def _methods(title: str) -> _Group:
    entries = [(name, first_line(f"method/{name}")) for name in method_names()]
    return _Group(title, entries, names_will_do=True)


def _stages(values: Mapping[str, object], call: Call) -> list[_Group]:
    given = values.get("stages")
    if not isinstance(given, list) or not given:
        return [_methods("no method is given; -c method/NAME takes a shipped one")]
    shared = {argument.name: argument for argument in class_arguments(UnlearningStage)}
    groups: list[_Group] = []
    used: set[str] = set()
    for i in range(len(given)):
        path = str(values[f"stages.{i}"])
        kind = class_at(path, UnlearningStage)
        if kind is None:
            groups.append(_Group(f"stages[{i}]: {path}", [], "there is no such stage"))
            continue
        arguments = _of_class(kind, values, f"stages.{i}.")
        # What all stages share is listed once, unless this one has another value.
        common = [a.name for a in arguments if a.name in shared and _value(a) == _value(shared[a.name])]
        used.update(common)
        note = f"and {', '.join(common)}" if common else ""
        groups.append(_Group(f"stages[{i}]: {kind.__name__}", [_entry(a) for a in arguments if a.name not in common], note))
    shares = [_entry(argument) for name, argument in shared.items() if name in used]
    return [*groups, _Group("what stages share" if used else "stages", shares, _how_to_set(call))]


def _how_to_set(call: Call) -> str:
    """Where the values of stages are set: the command line has no arguments for them."""
    file = next((path for name in reversed(call.configs) if "stages" in read_config(path := find_config(name))), Path())
    if not file.resolve().is_relative_to(config_folder().resolve()):
        return f"a stage's values are set in {file}"
    return f"a stage's values are set in a copy of the method's file: cp {file} mine.yaml, then -c mine.yaml"


def _entry(argument: Argument, prefix: str = "") -> tuple[str, str]:
    name = argument.name.removeprefix(prefix)
    return (name, f"(required) {argument.text}") if argument.required else (f"{name} = {_value(argument)}", argument.text)


def _value(argument: Argument) -> str:
    text = _text(argument.default)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping) and "class_path" in value:
        value = value["class_path"]
    text = str(getattr(value, "__name__", value))
    # A factory's name says enough without its module.
    return text.rpartition(".")[2].lstrip("_") if text.startswith("lightning_unlearn.") else text
