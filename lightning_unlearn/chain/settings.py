"""What a chain of stages is known by: its settings, and the user's own code in it."""

from collections.abc import Sequence
from types import FunctionType

from lightning_unlearn.sources import Code, hash_of_sources
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.training import describe_optimizer, optimizer_class, plain_attributes, stable_repr

__all__ = ["settings_of", "sources_of"]

# Public attributes of a stage that a run sets.
_NO_SETTINGS = ("training", "selected")


def settings_of(stages: Sequence[UnlearningStage]) -> str:
    """A chain in words that are the same whenever it is built from the same settings.

    Args:
        stages: The chain, before it ran.

    Returns:
        Classes, optimisers, selected parameters and plain settings, and a hash of what is the user's own code.
    """
    described = [
        (type(stage).__qualname__, _optimizers(stage), stable_repr(stage.selector), plain_attributes(stage, _NO_SETTINGS))
        for stage in stages
    ]
    return repr(described) + sources_of(stages)


def sources_of(stages: Sequence[UnlearningStage]) -> str:
    """A hash of the user's own code in a chain: of its stages, and of what they were given.

    Args:
        stages: The chain, before it ran.

    Returns:
        See `hash_of_sources`; empty where all of it is of this package, torch or Lightning.
    """
    code: list[Code] = []
    for stage in stages:
        code += [type(part) for part in stage.modules()]
        for name, value in vars(stage).items():
            if name.startswith("_"):
                continue
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            code += [one if isinstance(one, type | FunctionType) else type(one) for one in held]
            if name.endswith("optimizer") and callable(value):
                code.append(optimizer_class(value))
    return hash_of_sources(code)


def _optimizers(stage: UnlearningStage) -> list[str]:
    """Classes and settings of the optimisers of a stage: those attributes that are called so."""
    return [describe_optimizer(value) for key, value in sorted(vars(stage).items()) if key.endswith("optimizer") and value]
