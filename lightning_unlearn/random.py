"""Generators for draws that every rank must make alike."""

import contextlib
import os
from collections.abc import Generator

import torch

from lightning_unlearn.data.vision import hash_of_key

__all__ = ["generator", "run_seed", "seeded"]


# Not in the environment, which processes of further ranks inherit when they are started in the middle of a part.
_parts: list[int] = []


@contextlib.contextmanager
def seeded(seed: int) -> Generator[None]:
    """Let a part of a run have a seed of its own.

    Args:
        seed: What `run_seed` gives meanwhile.

    Yields:
        Nothing.
    """
    _parts.append(seed)
    try:
        yield
    finally:
        _parts.pop()


def run_seed() -> int:
    """The seed of the run: the one given to `seed_everything`, or 0; within `seeded` that of the part of it.

    Returns:
        The seed.
    """
    if _parts:
        return _parts[-1]
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def generator(purpose: str, seed: int | None = None) -> torch.Generator:
    """A generator on the CPU for one purpose, the same on every rank.

    Args:
        purpose: What is drawn.
        seed: Seed; None: the run's.

    Returns:
        A seeded generator.
    """
    return torch.Generator().manual_seed(abs(hash_of_key(f"{run_seed() if seed is None else seed}/{purpose}")))
