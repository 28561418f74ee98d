"""Layers of configuration: found by short name, read strictly, given back to any command."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path

import yaml

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.shipped import config_folder, config_names, find_config

__all__ = ["Tree", "first_line", "method_names", "parse_config", "read_config", "read_layer", "tree_without"]

Tree = dict[str, object]

# What a saved config shares with every command; the rest belongs to the command that saved it.
_SHARED = ("seed_everything", "trainer", "model", "data", "goal", "relearn_epochs")


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, each key once, and numbers such as 1e-4 as numbers."""


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.[\d_]+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, object]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # what is merged in may be overridden
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            problem = f"a key is a {type(key).__name__}"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    # Also merges.
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_config(text: str, source: str) -> Tree:
    """Read YAML that holds plain values only.

    Args:
        text: The YAML.
        source: Where it comes from, for messages.

    Returns:
        Its content.

    Raises:
        ConfigError: It is no YAML, names a key twice, asks for an object, or is no mapping.
    """
    try:
        # Safe: the loader is a SafeLoader.
        content = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise ConfigError(f"{source}{where}: {problem}. Needed: YAML with plain values, each key once.") from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply. Needed: a configuration.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source} holds a {type(content).__name__}; needed: keys such as `data:`, `model:`, `stages:`.")
    return {str(key): value for key, value in content.items()}


def read_config(path: Path) -> Tree:
    """Read a YAML file that holds plain values only.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Needed: a YAML file.") from None
    return parse_config(text, str(path))


def read_layer(name: str, command: str, arguments: Mapping[str, frozenset[str]]) -> tuple[Tree, list[str]]:
    """Read one layer for a command.

    A config that a run saved says which command it was for; another command takes what all share.
    Of a config written by hand, what belongs to other commands only is left out.

    Args:
        name: A path, or the short name of a shipped file.
        command: The command.
        arguments: Top-level arguments of every command.

    Returns:
        The content for this command, and the keys that were left out of a config written by hand.
    """
    content = read_config(find_config(name))
    # Not for this run: what `benchmark --tune` varies of a method, and what it says of its cost.
    content.pop("tune", None)
    content.pop("work", None)
    saved_by = content.pop("command", None)
    if saved_by is not None and saved_by != command:
        return {key: value for key, value in content.items() if key in _SHARED and key in arguments[command]}, []
    foreign = set().union(*arguments.values()) - arguments[command]
    left_out = [key for key in content if key in foreign]
    return {key: value for key, value in content.items() if key not in foreign}, left_out


def tree_without(tree: Mapping[str, object], *keys: str) -> Tree:
    """A copy of a configuration without some of its top-level keys.

    Args:
        tree: The configuration.
        *keys: What is left out.

    Returns:
        The copy.
    """
    return {key: value for key, value in tree.items() if key not in keys}


def method_names() -> list[str]:
    """Shipped methods.

    Returns:
        Short names without the group, sorted.
    """
    return [name.removeprefix("method/") for name in config_names("method")]


def first_line(name: str) -> str:
    """What a shipped file says about itself.

    Args:
        name: Its short name, such as `method/fine_tune`.

    Returns:
        The comment on its first line.
    """
    with (config_folder() / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
