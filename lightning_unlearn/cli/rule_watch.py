"""Sees that no layer of configuration silently decides what is forgotten."""

import logging
import re
from pathlib import Path

from lightning_unlearn.cli.configs import Tree, read_config, tree_without
from lightning_unlearn.config.shipped import config_folder, find_config
from lightning_unlearn.exceptions import ConfigError

__all__ = ["RuleWatch"]

log = logging.getLogger(__name__)

_TYPED = re.compile(r"--data\.forget(?=[.=]|$)")


class RuleWatch:
    """Follows the layers of a call from left to right.

    The shipped data configs carry a random rule, so that they run as they are; it is an example and nobody's request.
    """

    def __init__(self) -> None:
        self.named: str | None = None
        self.example: str | None = None
        self.rule: object = None

    def layer(self, name: str, layer: Tree) -> None:
        """Take a config.

        Args:
            name: Its name.
            layer: What it gives.

        Raises:
            ConfigError: It is an example that would replace what the user named.
        """
        data = layer.get("data")
        if not isinstance(data, dict) or "forget" not in data:
            return
        rule, example = data["forget"], _is_example(name)
        if self.named is not None and rule != self.rule:
            if example:
                raise ConfigError(
                    f"What to forget is given by {self.named}, and -c {name} behind it would replace that with a rule of its "
                    f"own. Give -c {name} first."
                )
            if rule is not None or self.rule is not None:
                log.warning("what to forget: %s replaces what %s gives.", name, self.named)
        if example:
            self.example = name
        else:
            self.named = name
        self.rule = rule

    def typed(self, option: str) -> None:
        """Take an argument of the command line.

        Args:
            option: Its name, dashes included.
        """
        if found := _TYPED.match(option):
            self.named, self.rule = found[0], option

    @property
    def unnamed(self) -> str | None:
        """That what is forgotten was nobody's choice; None where it was somebody's."""
        if self.named is not None or self.example is None or self.rule is None:
            return None
        return (
            f"nobody named what to forget: the rule is the example in {self.example} ({_in_words(self.rule)}). For a request "
            "of your own give --data.forget ListedSamples --data.forget.path FILE."
        )

    def end(self, command: str) -> None:
        """Say so where what is forgotten was nobody's choice; `evaluate` says it once it has looked for a saved split.

        Args:
            command: The command.
        """
        if command == "unlearn" and self.unnamed is not None:
            log.warning("%s", self.unnamed)

    @staticmethod
    def without_example(name: str, layer: Tree) -> Tree:
        """A config behind a run that says what was forgotten, without the rule that it has as an example.

        Args:
            name: Its name.
            layer: What it gives.

        Returns:
            The layer.
        """
        data = layer.get("data")
        return {**layer, "data": tree_without(data, "forget")} if isinstance(data, dict) and _is_example(name) else layer


def _is_example(name: str) -> bool:
    """Whether a config is shipped, or saved by a training that left its rule unused."""
    path = find_config(name)
    if path.resolve().is_relative_to(config_folder().resolve()):
        return True
    content = read_config(Path(path))
    data = content.get("data")
    return content.get("command") == "fit" and isinstance(data, dict) and data.get("view", "train") == "train"


def _in_words(rule: object) -> str:
    if not isinstance(rule, dict):
        return str(rule)
    arguments = rule.get("init_args") or {}
    given = ", ".join(f"{name} {value}" for name, value in arguments.items()) if isinstance(arguments, dict) else ""
    return f"{str(rule.get('class_path', '')).rpartition('.')[2]} {given}".strip()
