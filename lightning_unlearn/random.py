"""Generators for draws that every rank must make alike."""

import contextlib
import os
from collections.abc import Generator

import torch

from lightning_unlearn.data.vision import hash_of_key

__all__ = ["at_stage", "drawn_for", "drawn_from", "generator", "run_seed", "seeded", "stage_seed"]


# Not in the environment, which processes of further ranks inherit when they are started in the middle of a part.
_parts: list[int] = []
_positions: list[int] = []


@contextlib.contextmanager
def seeded(seed: int) -> Generator[None]:
    """Let a part of a run have a seed of its own, wherever it runs.

    Args:
        seed: What `run_seed` gives meanwhile.

    Yields:
        Nothing.
    """
    _parts.append(seed)
    try:
        with at_stage(0):
            yield
    finally:
        _parts.pop()


@contextlib.contextmanager
def at_stage(position: int) -> Generator[None]:
    """Let a stage of a chain have draws of its own, also behind others of its class.

    Args:
        position: Its number in the chain, from 0.

    Yields:
        Nothing.
    """
    _positions.append(position)
    try:
        yield
    finally:
        _positions.pop()


def stage_seed(seed: int) -> int:
    """What the running stage has in place of a seed; a function of the seed and the stage's position, on every rank.

    Args:
        seed: Seed of the whole chain.

    Returns:
        The seed itself in the first stage and outside of stages, else one in 0 ... 2**32 - 1.
    """
    position = _positions[-1] if _positions else 0
    return hash_of_key(f"{seed}/stage {position}") % 2**32 if position else seed


def run_seed() -> int:
    """The seed of the run: the one given to `seed_everything`, or 0; within `seeded` and `at_stage` that of the part of it.

    Returns:
        The seed.
    """
    return stage_seed(_parts[-1] if _parts else int(os.environ.get("PL_GLOBAL_SEED", "0")))


def generator(purpose: str, seed: int | None = None) -> torch.Generator:
    """A generator on the CPU for one purpose, the same on every rank.

    Args:
        purpose: What is drawn.
        seed: Seed; None: the run's.

    Returns:
        A seeded generator.
    """
    return torch.Generator().manual_seed(abs(hash_of_key(f"{run_seed() if seed is None else seed}/{purpose}")))


@contextlib.contextmanager
def drawn_from(seed: int) -> Generator[None]:
    """Let torch's global random numbers on the CPU start from a seed; outside they go on as if nothing had been drawn.

    Args:
        seed: The seed.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which also seeds devices that are not put back.
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def drawn_for(purpose: str) -> Generator[None]:
    """The same with a seed for one purpose, which is the same on every rank; see `generator`.

    Args:
        purpose: What is drawn.

    Yields:
        Nothing.
    """
    with drawn_from(int(torch.randint(2**62, (), generator=generator(purpose)))):
        yield
