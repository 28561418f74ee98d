"""Shipped configurations by short name, and methods as lists of fresh stages."""

import difflib
import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import lightning_unlearn.stages  # short class names are found among imported classes
from lightning_unlearn.exceptions import ConfigError, UnlearnError
from lightning_unlearn.shipped import find_config
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Method", "load_method"]


@dataclass(frozen=True)
class Method:
    """A method: a file that lists stages.

    Attributes:
        path: The YAML file; `stages` in it is the list.
    """

    path: Path

    @cached_property
    def settings(self) -> Namespace:
        """The parsed stages, with all defaults filled in."""
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--stages", type=list[UnlearningStage], required=True)
        try:
            content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path} is no plain YAML: {' '.join(str(error).split())[:300]}") from None
        if not isinstance(content, dict) or "stages" not in content:
            raise ConfigError(f"{self.path} lists no stages; needed: `stages:` with one class_path per stage.")
        try:
            settings: Namespace = parser.parse_object({"stages": content["stages"]})
        except ArgumentError as error:
            raise ConfigError(f"{self.path}: {_first_line(str(error), content['stages'])}") from None
        return settings

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


def load_method(name: str) -> Method:
    """A method by the name of a shipped file, or by a path.

    Args:
        name: `fine_tune`, `method/fine_tune`, or a path.

    Returns:
        The method; its file is read and checked.
    """
    method = Method(find_config(name if "/" in name or name.endswith(".yaml") else f"method/{name}", "method"))
    _ = method.settings
    return method


def _first_line(message: str, stages: object) -> str:
    """The error, with the nearest stage where a class is not known."""
    listed = stages if isinstance(stages, list) else []
    names = [entry.get("class_path", "") if isinstance(entry, dict) else str(entry) for entry in listed]
    known = list(lightning_unlearn.stages.__all__)
    for name in names:
        if "." not in name and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            return f"no stage is called {name!r}." + (f" Nearest: {near[0]!r}." if near else f" Known: {', '.join(known)}.")
    text = " ".join(message.split())
    if found := re.search(r"Option '([^']+)' is not accepted", text):
        kinds = [getattr(lightning_unlearn.stages, str(name).rpartition(".")[2], None) for name in names]
        known = sorted({a for kind in kinds if kind is not None for a in _arguments(kind)})
        near = difflib.get_close_matches(found[1], known, n=1)
        return f"no stage in it has an argument {found[1]!r}." + (f" Nearest: {near[0]!r}." if near else "")
    if found := re.search(r"No module named '([^']+)'", text):
        return f"there is no module {found[1]!r} in this folder ({Path.cwd()}) nor among the installed packages."
    return text[:300]


def _arguments(kind: type) -> set[str]:
    """Names that a constructor takes, through its base classes too."""
    makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    return {name for make in makers for name in inspect.signature(make).parameters}
