"""Generators for draws that every rank must make alike."""

import os

import torch

from lightning_unlearn.data.vision import hash_of_key

__all__ = ["generator", "run_seed"]


def run_seed() -> int:
    """The seed of the run: the one given to `seed_everything`, or 0.

    Returns:
        The seed.
    """
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
