"""The values that a call gives, by dotted name, as far as they can be told without parsing it."""

from collections.abc import Mapping
from itertools import pairwise

from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.cli.configs import read_config
from lightning_unlearn.config.shipped import find_config

__all__ = ["values_in_force"]


def values_in_force(call: Call) -> dict[str, object]:
    """What the configs of a call give, left to right, and what is typed.

    Args:
        call: The call.

    Returns:
        Values by dotted name without `class_path` and `init_args`: `data.dataset: Digits`, `data.dataset.train_size: 600`,
        `stages.0.max_epochs: 5`. Typed values are text.
    """
    tree: dict[str, object] = {}
    for name in call.configs:
        tree = _merged(tree, read_config(find_config(name)))
    found: dict[str, object] = {}
    for key, value in tree.items():
        _flatten(key, value, found)
    for token, behind in pairwise([*call.arguments, "--"]):
        option, _, value = token.partition("=")
        value = value or ("" if behind.startswith("--") else behind)
        if option.startswith("--") and value:
            place = [key for key in option[2:].split(".") if key not in ("class_path", "init_args")]
            found[".".join(place)] = value
    return found


def _merged(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """Mappings key by key; of anything else what stands later."""
    merged = dict(before)
    for key, value in after.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _flatten(place: str, value: object, found: dict[str, object]) -> None:
    if isinstance(value, Mapping):
        # What a class is given goes to the class's place.
        inner = value.get("init_args", {}) if "class_path" in value else value
        found[place] = value.get("class_path", value)
        for key, below in inner.items() if isinstance(inner, Mapping) else ():
            _flatten(f"{place}.{key}", below, found)
        return
    found[place] = value
    for i, below in enumerate(value if isinstance(value, list) else ()):
        _flatten(f"{place}.{i}", below, found)
