"""Hyper-parameters as plain values, so that a checkpoint loads without running anything."""

import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

__all__ = ["plain_values", "without_notes"]


def plain_values(values: Mapping[str, object], warn: bool = True) -> dict[str, Any]:
    """The entries that are plain values, as exactly the built-in types.

    Numbers of NumPy and paths become plain; lists, tuples and dicts must hold plain values only.

    Args:
        values: Hyper-parameters by name.
        warn: Whether to warn about what is left out.

    Returns:
        The entries that `torch.load(weights_only=True)` can restore.
    """
    result, left_out = {}, []
    for name, value in values.items():
        try:
            result[str(name)] = _plain(value)
        except TypeError:
            left_out.append(f"{name} ({type(value).__name__})")
    if left_out and warn:
        warnings.warn(
            f"These hyper-parameters are not plain values and are not saved: {', '.join(left_out)}.",
            stacklevel=4,
        )
    return result


def without_notes(values: dict[str, Any]) -> dict[str, Any]:
    """What a constructor takes: Lightning's command line adds notes (`_instantiator`) that name code."""
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _plain(value: object) -> object:
    """One value as built-in types, also NumPy's numbers and paths; raises TypeError for what is not plain."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not plain")
