"""What only the first rank may do, and where ranks wait for each other."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import torch.distributed as dist

from lightning_unlearn.exceptions import METHOD_FAILURES, UnlearnError
from lightning_unlearn.files import lock_folder

__all__ = ["barrier", "first_says", "is_first", "lock_on_first", "method_failures"]

_held: set[Path] = set()


def is_first() -> bool:
    """Whether this process is the first of its group, also before the group was set up.

    Returns:
        True on the first rank, and where there is only one.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def method_failures() -> tuple[type[Exception], ...]:
    """What a method may end with while others go on.

    Returns:
        `METHOD_FAILURES`; on several ranks only what all of them end with at once: the others would wait for one that went on.
    """
    alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    return METHOD_FAILURES if alone else (UnlearnError,)


def first_says(value: bool) -> bool:
    """What the first rank found, on every rank: files may change between two looks at them.

    Before the group is set up a rank goes by what it finds itself: the others start while the first one waits for them.

    Args:
        value: What this rank found.

    Returns:
        What the first rank found.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    found = [value]
    dist.broadcast_object_list(found, 0)
    return found[0]


@contextlib.contextmanager
def lock_on_first(folder: str | Path, wait: bool = False, again: bool = False) -> Generator[None]:
    """`lock_folder` on the first rank, nothing on the others.

    Args:
        folder: The folder.
        wait: Whether to wait until another process lets go.
        again: Whether it is enough that a caller further up in this process holds the folder.

    Yields:
        Nothing.
    """
    path = Path(folder).resolve()
    if not is_first() or (again and path in _held):
        yield
        return
    with lock_folder(folder, wait):
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
