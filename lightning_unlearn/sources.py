"""What code of the user's own does stands nowhere but in its source: results are kept under a hash of it."""

import hashlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import TypeAlias

__all__ = ["Code", "hash_of_sources"]

Code: TypeAlias = type | FunctionType

# Known by the names of their classes, and by their versions where these are kept.
_KNOWN = sys.stdlib_module_names | {
    *("jsonargparse", "lightning", "lightning_fabric", "lightning_unlearn", "pytorch_lightning"),
    *("timm", "torch", "torchmetrics", "torchvision"),
}
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})


def hash_of_sources(code: Iterable[Code]) -> str:
    """A hash of the source of classes and functions that a user wrote.

    Followed are base classes and, but in installed packages, the functions, classes and plain constants that the code names.
    Classes of torch, torchvision, timm, Lightning and this package are left out. A source is read once: what is edited while
    Python runs does not run either.

    Args:
        code: Classes and functions.

    Returns:
        64 hexadecimal digits; empty where none of them is the user's own.
    """
    texts: set[str] = set()
    seen: set[Code] = set()
    waiting = list(code)
    while waiting:
        one = waiting.pop()
        if one in seen or _top(one) in _KNOWN:
            continue
        seen.add(one)
        text, others = _read(one)
        texts.add(text)
        waiting += others
    return hashlib.sha256(json.dumps(sorted(texts)).encode()).hexdigest() if texts else ""


@cache
def _read(code: Code) -> tuple[str, tuple[Code, ...]]:
    """The source of a class or function with the constants that it names, and what else it rests on."""
    others: list[Code] = [*code.__mro__[1:]] if isinstance(code, type) else []
    lines = [f"{code.__module__}.{code.__qualname__}", _source(code)]
    if _is_installed(sys.modules.get(code.__module__)):
        return "\n".join(lines), tuple(others)
    for function in _functions(code):
        names = _names(function.__code__)
        for name in sorted(names & function.__globals__.keys()):
            value = function.__globals__[name]
            found = [value]
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in _KNOWN and not _is_installed(value):
                # `losses.own_loss(...)`, where losses.py is the user's.
                found += [vars(value)[inner] for inner in sorted(names & vars(value).keys())]
            others += [one if isinstance(one, type | FunctionType) else type(one) for one in found]
            lines += [f"{name} = {value!r}"] * _is_plain(value)
    return "\n".join(lines), tuple(others)


def _top(code: Code) -> str:
    return str(code.__module__).partition(".")[0]


def _is_installed(module: ModuleType | None) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(_INSTALLED)


def _source(code: Code) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        # A class of a notebook has no file; its methods have the text of their cells, and its constants are plain.
        if not isinstance(code, type):
            return str([code.__code__.co_code, list(filter(_is_plain, code.__code__.co_consts))])
        plain = sorted((name, repr(value)) for name, value in vars(code).items() if _is_plain(value) and name[:2] != "__")
        return "\n".join([str(plain), *map(_source, _functions(code))])


def _functions(code: Code) -> list[FunctionType]:
    """A function itself; of a class its methods and properties, as they were before they were decorated."""
    if isinstance(code, FunctionType):
        found: list[object] = [code]
    else:
        held = ("__func__", "fget", "func")  # of a static or class method, a property, a cached property
        found = [next((getattr(v, name) for name in held if hasattr(v, name)), v) for v in vars(code).values()]
    unwrapped = [inspect.unwrap(one) for one in found if callable(one) and not isinstance(one, type)]
    return [one for one in unwrapped if isinstance(one, FunctionType)]


def _names(code: CodeType) -> set[str]:
    """Global names and attributes that a function mentions, its inner functions included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name for name in code.co_names if not name.startswith("__")}.union(*inner)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
