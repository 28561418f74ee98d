"""YAML read strictly: plain values only, each key once. Imports no torch."""

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

from lightning_unlearn.exceptions import ConfigError

__all__ = ["Tree", "parse_config", "read_config"]

Tree = dict[str, object]


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
