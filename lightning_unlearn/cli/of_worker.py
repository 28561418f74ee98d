"""Errors out of a worker of a DataLoader, which torch hands on with the worker's whole traceback as their message."""

import re

__all__ = ["plain"]

_CAUGHT = re.compile(r"Caught (\w+) in [^\n]+\.\nOriginal ")


def plain(error: BaseException) -> tuple[str, str]:
    """The kind of an error and its message, without the traceback of a worker.

    Args:
        error: The error.

    Returns:
        Name of its class, and its message.
    """
    text = str(error)
    found = _CAUGHT.match(text)
    if found is None:
        return type(error).__name__, text
    # The last one: an error may have led to another. The name stands behind that of its module.
    return found[1], re.split(rf"^(?:\S+\.)?{found[1]}(?:: |$)", text, flags=re.MULTILINE)[-1].strip()
