"""From the layers of a call, left to right, to the arguments that its parser reads."""

import logging
from collections.abc import Mapping
from pathlib import Path

import yaml

from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.cli.configs import read_layer
from lightning_unlearn.cli.from_run import another_request
from lightning_unlearn.cli.rule_watch import RuleWatch
from lightning_unlearn.cli.run_folder import CONFIG, RunFolder
from lightning_unlearn.cli.typed import as_list, list_arguments, refuse_cut_value, refuse_single_stage
from lightning_unlearn.config.names import hint
from lightning_unlearn.config.shipped import find_config
from lightning_unlearn.config.stage_list import check_stage_list
from lightning_unlearn.exceptions import ConfigError

__all__ = ["OF_THE_DATA", "layered"]

log = logging.getLogger(__name__)

# Arguments of a model that follow the data.
OF_THE_DATA = ("num_classes", "in_chans", "image_size")


def layered(call: Call, commands: Mapping[str, frozenset[str]]) -> tuple[list[str], dict[str, object], str | None]:
    """The arguments with every config read, checked and put in its place.

    Args:
        call: The call.
        commands: Top-level arguments of every command.

    Returns:
        The arguments; what was given of `OF_THE_DATA`; and, where nobody named what to forget, a sentence that says so.

    Raises:
        ConfigError: A config or an argument is unknown, or belongs to another command or run.
    """
    command = call.command or ""
    earlier = call.resume or call.run
    if earlier is not None:
        began = RunFolder(Path(earlier)).record().get("command")  # says so where it is no run
        if call.resume is not None and began != command:
            raise ConfigError(f"{earlier} is a run of {began}, not of {command}. Resume it with {began}.")
    tokens = ([] if earlier is None else ["--config", str(Path(earlier) / CONFIG)]) + call.arguments
    arguments: list[str] = []
    given: dict[str, object] = {}
    method: str | None = None
    watch, lists = RuleWatch(), list_arguments(command)
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else ""
        if i and tokens[i - 1] == "--config":
            layer, left_out = read_layer(token, command, commands)
            if left_out:
                of_benchmark = command == "benchmark" and "stages" in left_out
                told = " Name methods with --methods, and what prepares originals with --prepare." * of_benchmark
                log.info("note: %s in %s is not for %s and is left out.%s", ", ".join(left_out), token, command, told)
            unknown = [key for key in layer if key.partition(".")[0] not in commands[command]]
            if unknown:
                near = hint(unknown[0], commands[command])
                raise ConfigError(f"{command} has no argument {unknown[0]!r}, which {find_config(token)} gives.{near}")
            name: str | None = Path(token).stem
            if i == 1 and call.run is not None:
                layer, name = another_request(command, Path(call.run), layer)
            elif command == "evaluate" and call.run is not None:
                layer = watch.without_example(token, layer)
            watch.layer(token, layer)
            layer |= {key: [layer[key]] for key in lists if isinstance(layer.get(key), str | int)}
            model = layer.get("model")
            inner = model.get("init_args") if isinstance(model, dict) else None
            given.update({n: inner[n] for n in OF_THE_DATA if isinstance(inner, dict) and n in inner})
            arguments.append(yaml.safe_dump(layer, default_flow_style=True))
            if "stages" in layer:
                check_stage_list(layer["stages"], token)
                method = name
        else:
            option, _, value = token.partition("=")
            refuse_cut_value(tokens[i - 1 :] if i else tokens)
            refuse_single_stage(option)
            watch.typed(option)
            linked = option.removeprefix("--model.").removeprefix("init_args.")
            if option.startswith("--model.") and linked in OF_THE_DATA:
                given[linked] = value or "".join(tokens[i + 1 : i + 2])
            if value and option[2:] in lists:
                token = f"{option}={as_list(value)}"
            elif before.startswith("--") and before[2:] in lists:
                token = as_list(token)
            arguments.append(token)
    if command == "unlearn" and call.run is not None and watch.named is None:
        raise ConfigError(
            f"unlearn --run goes on from what {call.run} ended with, and needs the next request. Give --data.forget "
            "ListedSamples --data.forget.path second.csv, for instance."
        )
    watch.end(command)
    # First, so that a `name` in a config counts more.
    named = [] if method is None or command != "unlearn" else ["--name", method]
    return [*named, *arguments], given, watch.unnamed
