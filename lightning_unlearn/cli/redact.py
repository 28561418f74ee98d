"""A configuration for the report, which names no sample and no person."""

import copy

import yaml

from lightning_unlearn.cli.configs import Tree

__all__ = ["without_names"]


def without_names(config: Tree) -> str:
    """The configuration as YAML, without the values by which a forget rule picks samples.

    Args:
        config: Plain values.

    Returns:
        YAML; the values of `ByAttribute` are replaced by their number. config.yaml in the run's folder keeps them.
    """
    shown = copy.deepcopy(config)
    _redact(shown)
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _redact(node: object) -> None:
    if isinstance(node, dict):
        arguments = node.get("init_args")
        if str(node.get("class_path", "")).endswith("ByAttribute") and isinstance(arguments, dict):
            arguments["values"] = f"{len(arguments.get('values') or [])} values"
        for value in node.values():
            _redact(value)
    elif isinstance(node, list):
        for value in node:
            _redact(value)
