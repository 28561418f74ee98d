"""Layers of configuration: found by short name, given back to any command."""

from collections.abc import Mapping

from lightning_unlearn.config.shipped import config_folder, config_names, find_config
from lightning_unlearn.config.strict_yaml import Tree, parse_config, read_config

__all__ = ["Tree", "first_line", "method_names", "parse_config", "read_config", "read_layer", "tree_without"]

# What a saved config shares with every command; the rest belongs to the command that saved it.
_SHARED = ("seed_everything", "trainer", "model", "data", "goal", "relearn_epochs")


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
