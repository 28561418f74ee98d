"""What a class can be given: names, defaults, types and one sentence each, as the parser sees them."""

import importlib
import inspect
import re
import types
import typing
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jsonargparse import ArgumentParser

__all__ = ["Argument", "arguments_of", "class_arguments", "class_at", "subclass_names"]


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        name: Its name, dotted in a command's parser.
        default: Its default.
        required: Whether it has none.
        text: The first sentence of its documentation.
        type: Its annotation.
    """

    name: str
    default: object
    required: bool
    text: str
    type: object


def arguments_of(parser: ArgumentParser) -> list[Argument]:
    """All arguments of a parser but help and configs.

    Args:
        parser: The parser.

    Returns:
        The arguments, in order.
    """
    found = []
    for action in parser._actions:
        options = action.option_strings
        if (
            not options
            or action.default == SUPPRESS
            or any(o in ("-h", "-c") or o.endswith(".help") or "print_config" in o for o in options)
        ):
            continue
        text = " ".join((action.help or "").split())
        type_ = getattr(action, "_typehint", action.type)
        found.append(Argument(action.dest, action.default, bool(action.required), _first_sentence(text), type_))
    return found


def class_arguments(kind: type) -> list[Argument]:
    """The arguments of a constructor, those that reach it through `**kwargs` included.

    Args:
        kind: The class.

    Returns:
        The arguments, in order.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    required = set(getattr(parser, "required_args", ()))
    return [
        Argument(a.name, a.default, a.required or a.name in required, a.text, a.type)
        for a in arguments_of(parser)
        if a.name != "params"  # an optimiser's, given by the program
    ]


def class_at(path: str, base: object = None) -> type | None:
    """A class by import path, or by short name among the subclasses of a type.

    Args:
        path: `package.module.Class` or `Class`.
        base: The annotation that it has to fit.

    Returns:
        The class, or None where there is none.
    """
    module, _, name = path.rpartition(".")
    if not module:
        return next((kind for kind in _subclasses(base) if kind.__name__ == name), None)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def subclass_names(annotation: object) -> list[str]:
    """Short names of the classes that an argument takes.

    Args:
        annotation: Its type.

    Returns:
        Names of all imported subclasses that can be built.
    """
    return sorted({kind.__name__ for kind in _subclasses(annotation)})


def _subclasses(annotation: object) -> Iterator[type]:
    for base in _classes(annotation):
        queue = [base]
        while queue:
            kind = queue.pop()
            queue += kind.__subclasses__()
            if not inspect.isabstract(kind) and not kind.__name__.startswith("_"):
                yield kind


def _classes(annotation: object) -> Iterator[type]:
    """The classes of our kind in an annotation; of a factory those that it makes."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Callable or origin is typing.get_origin(Callable[[int], int]):
        parts = parts[-1:]
    if origin is not None or isinstance(annotation, types.UnionType):
        for part in parts:
            yield from _classes(part)
    elif isinstance(annotation, type) and annotation.__module__ != "builtins":
        yield annotation


def _first_sentence(text: str) -> str:
    """The first sentence; `0 ... 1` does not end one."""
    return re.split(r"(?<!\.)\.(?=\s+[A-Z`\d]|$)", text, maxsplit=1)[0]
