"""Errors inside code of the user's own: where they come from, and what a class is given there. Imports no torch."""

import sysconfig
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import lightning_unlearn
from lightning_unlearn.cli.of_worker import plain
from lightning_unlearn.exceptions import ConfigError

__all__ = ["of_own_code", "refuse_broken"]

_OURS = Path(lightning_unlearn.__file__).parent
# Functions of jsonargparse and of Python that import what a config names, by their argument `name`.
_IMPORTING = ("import_object", "import_module")
_PYTHON = Path(sysconfig.get_path("stdlib"))


def refuse_broken(error: BaseException, files: Sequence[Path], typed: Sequence[str]) -> None:
    """Refuse a module of the user's own that a config names and that cannot be imported.

    Args:
        error: The error that this ended in, caught.
        files: Configs that may name it.
        typed: What was typed, which may name it, too.

    Raises:
        ConfigError: There is one.
    """
    text, named = _broken(_causes(error))
    if text:
        from lightning_unlearn.config.explain import place  # imports jsonargparse, which `report` does without

        raise ConfigError(f"{text}{place(named, files, typed)}") from error


def _broken(causes: Iterable[BaseException]) -> tuple[str, str]:
    """What to say of a module of the user's own whose import led to an error, and what named it; empty: there is none."""
    for cause in causes:
        place = _place_in_module(cause)
        if place is not None:
            said = cause.msg if isinstance(cause, SyntaxError) else str(cause)
            text = f"{place}: {type(cause).__name__}: {said}".rstrip(".")
            frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__) if frame.f_code.co_name in _IMPORTING]
            named = str(frames[0].f_locals.get("name", "")) if frames else ""
            return f"{named} cannot be imported: {text}." if named else f"{text}.", named
    return "", ""


def _place_in_module(error: BaseException) -> str | None:
    """File and line where the import of a module of the user's own failed."""
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
        return f"{file}, line {line}" if file is not None and _is_own(file) else None
    frames = _own_frames(error)
    if isinstance(error, ModuleNotFoundError) or not any(frame.f_code.co_name == "<module>" for frame, _ in frames):
        return None
    frame, number = frames[-1]
    return f"{frame.f_code.co_filename}, line {number}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _own_frames(error: BaseException) -> list[tuple[types.FrameType, int]]:
    return [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_own(frame.f_code.co_filename)]


def of_own_code(error: BaseException) -> str | None:
    """What to say of an error inside a class that is neither of this package nor installed.

    Args:
        error: The error, caught.

    Returns:
        File, line, the error and what the batch is; None where the error came from elsewhere.
    """
    # Of code that ran, what led to its error may be one that it had handled.
    text, _ = _broken([error])
    if text:
        return text
    frames = _own_frames(error)
    methods = [frame for frame, _ in frames if "self" in frame.f_locals]
    if not methods:
        return None
    frame, line = frames[-1]
    code = frame.f_code
    said = ": ".join(plain(error)).rstrip(".")
    hint = next(filter(None, map(_of_batch, methods)), "")
    return f"{code.co_filename}, line {line}, in {code.co_name}: {said}.{hint}"


def _is_own(file: str) -> bool:
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return path.is_file() and not installed and not path.is_relative_to(_OURS) and not path.is_relative_to(_PYTHON)


def _of_batch(method: types.FrameType) -> str:
    """What `objective` or a step of Lightning is given, if this is one."""
    if method.f_code.co_name != "objective" and not method.f_code.co_name.endswith("_step"):
        return ""
    name = next((n for n in method.f_code.co_varnames[1:2] if n in method.f_locals), "")
    batch = method.f_locals.get(name)
    # Here: where a method of this name runs, torch is there already, and what reads a report need not wait for it.
    from lightning_unlearn.data.batch import Batch

    fields = f"Batch({', '.join(Batch._fields)})"
    if batch is not None and hasattr(batch, "input") and hasattr(batch, "target"):
        shape = tuple(batch.input.shape)
        return f" A batch is {fields}: take {name}.input and {name}.target; here {name}.input is {shape}."
    if isinstance(batch, Mapping) and all(hasattr(part, "target") for part in batch.values()):
        parts = [f'{name}["{key}"] of {len(part.target)} samples' for key, part in batch.items()]
        return f" Here {name} is a dict with {' and '.join(parts)}, each {fields}."
    return ""
