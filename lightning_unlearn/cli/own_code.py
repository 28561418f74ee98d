"""Errors inside a class of the user's own: where they come from, and what the class is given there. Imports no torch."""

import sysconfig
import traceback
import types
from collections.abc import Mapping
from pathlib import Path

import lightning_unlearn

__all__ = ["of_own_code"]

_OURS = Path(lightning_unlearn.__file__).parent
_PYTHON = Path(sysconfig.get_path("stdlib"))


def of_own_code(error: BaseException) -> str | None:
    """What to say of an error inside a class that is neither of this package nor installed.

    Args:
        error: The error, caught.

    Returns:
        File, line, the error and what the batch is; None where the error came from elsewhere.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_own(frame.f_code.co_filename)]
    methods = [frame for frame, _ in frames if "self" in frame.f_locals]
    if not methods:
        return None
    frame, line = frames[-1]
    code = frame.f_code
    said = f"{type(error).__name__}: {error}".rstrip(".")
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
