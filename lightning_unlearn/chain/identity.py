"""What finished stages, cells and trials are known by beside models and methods: nothing else is read in their place."""

import hashlib
import json
from collections.abc import Callable, Sequence

from lightning.pytorch import Trainer

from lightning_unlearn import __version__
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import PARTS, Part
from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.sources import hash_of_sources
from lightning_unlearn.training import describe_batches, plain_attributes, quiet, stable_repr

__all__ = ["arguments_of", "digest", "setup_of"]


def setup_of(fresh: Callable[..., Trainer], data: UnlearningDataModule, parts: Sequence[Part] = PARTS) -> list[str]:
    """What figures depend on: samples, batches, what the Trainer does to a stage, and this version.

    Args:
        fresh: Makes a Trainer.
        data: The data, split.
        parts: Parts that are trained on, or looked at.

    Returns:
        Text that is the same whenever they are.
    """
    return [*(data.fingerprint(part) for part in parts), describe_batches(data), *arguments_of(fresh), __version__]


def digest(content: Sequence[object]) -> str:
    """A short hash of everything that a result depends on.

    Args:
        content: Values that JSON holds, or whose `repr` says what they are.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(content, default=stable_repr).encode()).hexdigest()[:16]


def arguments_of(fresh: Callable[..., Trainer]) -> list[str]:
    """Arguments and callbacks of the Trainer that reach a stage, where they were given: so the usual ones add nothing.

    Args:
        fresh: Makes a Trainer.

    Returns:
        Text that is the same whenever they are.
    """
    with quiet():
        trainer = fresh()
    if not isinstance(trainer, FreshTrainer):
        return []
    given = {name: stable_repr(value) for name, value in sorted(trainer.stage_arguments.items())}
    links = [f"{type(link).__module__}.{type(link).__qualname__} {plain_attributes(link)}" for link in trainer.stage_links]
    source = hash_of_sources(type(link) for link in trainer.stage_links)
    return [stable_repr(part) for part in (given, links, source) if part]
