"""Shipped configurations by short name, and methods as lists of fresh stages."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace

import lightning_unlearn.callbacks.select_by_unseen  # ruff: ignore[unused-import]  # as below
from lightning_unlearn.chain.settings import sources_of
from lightning_unlearn.config.explain import explain
from lightning_unlearn.config.introspection import arguments_of
from lightning_unlearn.config.shipped import find_config
from lightning_unlearn.config.stage_list import check_stage_list
from lightning_unlearn.config.strict_yaml import read_config
from lightning_unlearn.exceptions import ConfigError, UnlearnError
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.training import stable_repr

__all__ = ["Method", "load_method"]

_HALF_DECADES = [0.1, 0.3, 1.0, 3.0, 10.0]


@dataclass(frozen=True)
class Method:
    """A method: a file that lists stages.

    Attributes:
        path: The YAML file; `stages` in it is the list, and `tune`, where it is given, says what `benchmark --tune` varies:
            lists of factors by the place of a number, such as `stages.0.init_args.alpha: [0.1, 1, 10]`. `work`, where it has a
            closed form, is its cost in image passes (forward 1, backward 2): of the numbers of `forgotten`, `retained` and
            `unseen` samples and of `classes`, and of the `share` of the network behind what is frozen.
    """

    path: Path

    @cached_property
    def content(self) -> dict[str, object]:
        """The file as it is.

        Raises:
            ConfigError: It is no plain YAML, names a key twice, or lists no stages.
        """
        content = read_config(self.path)
        if "stages" not in content:
            raise ConfigError(f"{self.path} lists no stages; needed: `stages:` with one class_path per stage.")
        return content

    @cached_property
    def grid(self) -> dict[str, list[float]]:
        """Factors by place: those of `tune`, or else of every learning rate in the file, half decades from 0.1 to 10.

        Raises:
            ConfigError: `tune` is no mapping of places to lists of factors above 0, or there is nothing to vary.
        """
        given = self.content.get("tune")
        rates = dict.fromkeys(_learning_rates(self.content["stages"], "stages"), _HALF_DECADES)
        found = rates if given is None else given if isinstance(given, dict) else {}
        listed = [f for factors in found.values() for f in (factors if isinstance(factors, list) and factors else [None])]
        if not listed or not all(isinstance(f, int | float) and f > 0 for f in listed):
            raise ConfigError(
                f"{self.path} has nothing to tune; needed: a learning rate in its stages, or `tune:` with lists of factors "
                "above 0, such as `stages.0.init_args.alpha: [0.1, 1, 10]`."
            )
        return {str(place): [float(factor) for factor in factors] for place, factors in found.items()}

    @cached_property
    def settings(self) -> Namespace:
        """The parsed stages, with all defaults filled in."""
        stages = self.content["stages"]
        check_stage_list(stages, str(self.path))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--stages", type=list[UnlearningStage], required=True)
        try:
            settings: Namespace = parser.parse_object({"stages": copy.deepcopy(stages)})
        except ArgumentError as error:
            text = explain(str(error), arguments_of(parser), "a method", [self.path])
            raise ConfigError(text if str(self.path) in text else f"{self.path}: {text}") from None
        return settings

    @cached_property
    def identity(self) -> str:
        """What results of the method are known by: its settings, and a hash of what is the user's own code."""
        return stable_repr(self.settings) + sources_of(self())

    def __call__(self) -> list[UnlearningStage]:
        """Fresh stages.

        Returns:
            The chain.

        Raises:
            UnlearnError: A stage refuses its arguments.
            ConfigError: The same, where Python noticed it.
        """
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--stages", type=list[UnlearningStage], required=True)
        try:
            stages: list[UnlearningStage] = parser.instantiate(self.settings).stages
        except UnlearnError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.path}: {error}") from None
        return stages


def load_method(name: str, group: str = "method") -> Method:
    """A method by the name of a shipped file, or by a path.

    Args:
        name: `fine_tune`, `method/fine_tune`, or a path.
        group: Folder of shipped files that a bare name is looked for in.

    Returns:
        The method; its file is read and checked.
    """
    method = Method(find_config(name if "/" in name or name.endswith((".yaml", ".yml")) else f"{group}/{name}", group))
    _ = method.settings
    return method


def _learning_rates(node: object, place: str) -> list[str]:
    """Places of all numbers that are called `lr`."""
    if isinstance(node, list):
        return [found for i, inner in enumerate(node) for found in _learning_rates(inner, f"{place}.{i}")]
    if not isinstance(node, dict):
        return []
    own = [f"{place}.{name}" for name, value in node.items() if name == "lr" and isinstance(value, int | float)]
    return own + [found for name, inner in node.items() for found in _learning_rates(inner, f"{place}.{name}")]
