"""Dataclasses to JSON-plain values and back, checked against their type hints."""

import dataclasses
import math
import types
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from lightning_unlearn.exceptions import ConfigError

__all__ = ["decode", "encode"]

T = TypeVar("T")


def encode(value: object) -> object:
    """Make a value JSON-plain.

    Args:
        value: Dataclasses, dicts with text keys, lists, tuples, numbers, text, booleans, None.

    Returns:
        The same with dataclasses as dicts and non-finite numbers, which JSON does not know, as None.

    Raises:
        ConfigError: There is a value of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ConfigError(f"A report holds the key {wrong[0]!r}; keys must be text.")
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise ConfigError(f"A report holds a {type(value).__name__}; it takes numbers, text, lists and dicts.")


def decode(kind: type[T], value: object, where: str) -> T:
    """Build a dataclass from JSON-plain values.

    Args:
        kind: A dataclass whose fields are text, numbers, booleans, literals, lists, dicts, typed dicts, unions of
            these, or dataclasses of the same kind. A missing field takes its default; typed dicts keep
            unknown keys.
        value: What `encode` made of one; None stands for a number that was not finite.
        where: Name of the value, for the message.

    Returns:
        The dataclass. A field that is missing, unknown or of another type is a `ConfigError`.
    """
    return cast(T, _decode(kind, value, where))


def _decode(kind: object, value: object, where: str) -> object:
    origin = get_origin(kind)
    if kind is object:
        return value
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif kind is str:
        if isinstance(value, str):
            return value
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif origin is Literal:
        if value in get_args(kind):
            return value
    elif origin in (Union, types.UnionType):
        # None first: it also stands for a number that was not finite, but not where None is allowed.
        if value is None and type(None) in get_args(kind):
            return None
        return _decode(next(part for part in get_args(kind) if part is not type(None)), value, where)
    elif origin is list:
        if isinstance(value, list):
            (part,) = get_args(kind)
            return [_decode(part, item, f"{where}[{index}]") for index, item in enumerate(value)]
    elif origin is dict:
        if isinstance(value, dict):
            part = get_args(kind)[1]
            return {key: _decode(part, item, f"{where}.{key}") for key, item in value.items()}
    elif isinstance(kind, type) and is_typeddict(kind):
        if isinstance(value, dict):
            hints = get_type_hints(kind)
            needed: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
            _complain(where, missing=sorted(needed - value.keys()))
            return {key: _decode(hints.get(key, object), item, f"{where}.{key}") for key, item in value.items()}
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _decode_fields(kind, value, where)
    raise ConfigError(f"{where} is {_shown(value)}; it must be {_name(kind)}.")


def _decode_fields(kind: type, value: dict[str, object], where: str) -> object:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    optional = {
        name
        for name, field in fields.items()
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    _complain(where, missing=[name for name in fields if name not in value and name not in optional])
    _complain(where, unknown=[name for name in value if name not in fields])
    hints = get_type_hints(kind)
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _complain(where: str, missing: list[str] | None = None, unknown: list[str] | None = None) -> None:
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}.")
    if unknown:
        raise ConfigError(f"{where} has the unknown key {_shown(unknown[0])}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name(kind: object) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(kind))
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", list: "a list", dict: "a dict"}
    return names.get(get_origin(kind) or kind, "a dict")  # type: ignore[arg-type]  # any object may be asked for
