"""Random draws as a function of what they are for: the same on every rank, worker and after every deletion.

A generator that is advanced sample by sample gives other numbers as soon as one sample is missing. Here every
number is a hash of (seed, purpose, epoch, key hash) instead, so a sample keeps its draws whoever makes them.
"""

import hashlib
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Draw", "chosen_share", "mix", "order", "purpose", "uniform"]

Draw = Literal["exact", "bernoulli"]


def _signed(value: int) -> int:
    """The 64-bit pattern of `value`, read as a signed number."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; that of torch repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _finalise(x: Tensor) -> Tensor:
    """A step of splitmix64 (Steele, Lea and Flood, 2014): a bijection in which every bit moves every bit."""
    x = x + _GAMMA
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def mix(*values: int | Tensor) -> Tensor:
    """Hash of several integers, element by element; their order matters.

    Args:
        *values: At least one; tensors are int64 of shapes that broadcast together, on one device.

    Returns:
        int64, of the common shape.

    Raises:
        ValueError: No value was given.
        TypeError: A tensor is not int64.
    """
    if not values:
        raise ValueError("mix() needs at least one value.")
    # A scalar on the CPU combines with tensors of any device, so plain integers cost no kernel launches.
    state = torch.zeros((), dtype=torch.int64)
    for value in values:
        if isinstance(value, Tensor) and value.dtype != torch.int64:
            raise TypeError(f"mix() needs int64 tensors, not {value.dtype}.")
        state = _finalise(state ^ (value if isinstance(value, Tensor) else _signed(value)))
    return state


def purpose(name: str) -> int:
    """A signed 64-bit number for what a draw is for, so that two draws about one sample are independent."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def uniform(hashes: Tensor, seed: int, purpose: str, epoch: int = 0) -> Tensor:
    """One uniform number per sample.

    Args:
        hashes: Key hashes, int64, any shape.
        seed: Seed of the run.
        purpose: What the number is for; any text, other texts give independent numbers.
        epoch: Number of the epoch.

    Returns:
        float64 in [0, 1), of the shape of `hashes`, on its device.
    """
    # The upper 53 bits: as many as a double holds.
    return _shift(_draw(hashes, seed, purpose, epoch), 11).double() * 2.0**-53


def order(hashes: Tensor, seed: int, purpose: str, epoch: int = 0) -> Tensor:
    """A random order of samples; two samples keep their relative order when others are deleted.

    Args:
        hashes: Key hashes, (N,), int64.
        seed: Seed of the run.
        purpose: What the order is for.
        epoch: Number of the epoch.

    Returns:
        The permutation, (N,), int64, positions in `hashes`; equal hashes keep their given order.
    """
    return torch.argsort(_draw(hashes, seed, purpose, epoch), stable=True)


def chosen_share(hashes: Tensor, seed: int, purpose: str, share: float, draw: Draw) -> Tensor:
    """A random share of samples.

    Args:
        hashes: Key hashes, (N,), int64.
        seed: Seed of the draw.
        purpose: What it is for.
        share: 0 ... 1.
        draw: `exact` takes the nearest whole number of them; `bernoulli` tosses a coin per sample: the count varies, but
            whether a sample is chosen does not depend on which others there are.

    Returns:
        Positions in `hashes`, int64.
    """
    if draw == "exact":
        return order(hashes, seed, purpose)[: round(share * len(hashes))]
    return (uniform(hashes, seed, purpose) < share).nonzero().flatten()


def _draw(hashes: Tensor, seed: int, name: str, epoch: int) -> Tensor:
    return mix(seed, purpose(name), epoch, hashes)
