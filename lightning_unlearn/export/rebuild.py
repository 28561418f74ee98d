"""How somebody without this package builds a network again: found by trying, and true bit for bit."""

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_unlearn.exceptions import ConfigError

__all__ = ["Plain", "Recipe", "find_recipe"]

Plain: TypeAlias = str | int | float | bool | Sequence[int] | Sequence[str] | Sequence[float] | None
HEAD = """import json
from pathlib import Path

{imports}

config = json.loads(Path("config.json").read_text())
"""


@dataclass(frozen=True)
class Recipe:
    """How to build a network before its weights are loaded.

    Attributes:
        architecture: timm name or class path.
        model_args: Arguments for it, plain.
        source: Text of the file that defines the class; None for a timm architecture.
        replaced: Layers that differ from the architecture's: name -> `nn.Layer(...)`.
    """

    architecture: str
    model_args: dict[str, Plain]
    source: str | None
    replaced: dict[str, str]

    def code(self) -> str:
        """Python that makes `network` from the exported files in the current folder."""
        if self.source is None and not self.replaced:
            return 'import timm\n\nnetwork = timm.create_model("local-dir:.", pretrained=True)\n'
        imports = ["from safetensors.torch import load_file"]
        if self.replaced:
            imports.append("from torch import nn")
        if self.source is None:
            imports.insert(0, "import timm")
            build = f'timm.create_model("{self.architecture}", pretrained=False, **config["model_args"])'
        else:
            name = self.architecture.rpartition(".")[2]
            imports += ["", f"from modeling import {name}"]
            build = f'{name}(**config["model_args"])'
        lines = [f"network = {build}"]
        for name, layer in self.replaced.items():
            change = f'network.set_submodule("{name}", {layer})' if "." in name else f"network.{name} = {layer}"
            lines.append(change)
        lines.append('network.load_state_dict(load_file("model.safetensors"))')
        return HEAD.format(imports="\n".join(imports)) + "\n".join(lines) + "\n"


def find_recipe(
    network: nn.Module,
    architecture: str,
    model_args: Mapping[str, Plain],
    tensors: Mapping[str, Tensor],
    input_size: tuple[int, int, int],
) -> Recipe:
    """Find out how a network is built, and build it that way to compare.

    Args:
        network: On the CPU, in eval mode, contiguous.
        architecture: timm name, or class path of a module whose file imports only torch and the standard
            library.
        model_args: All its arguments, with `num_classes` and `in_chans`.
        tensors: The network's state dict.
        input_size: Channels, height and width of the images.

    Returns:
        The recipe; with it and `tensors`, the outputs on random images are bit-equal.

    Raises:
        ConfigError: The network is of another class, or cannot be built again.
    """
    import timm  # takes seconds

    # What the reader of config.json will pass: lists in place of tuples.
    try:
        arguments = json.loads(json.dumps(model_args, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The arguments {model_args} are not plain: {error}. Give numbers, texts, lists.") from None
    source = None
    maker: Any = timm.create_model
    if timm.is_model(architecture):
        arguments = {"model_name": architecture, **arguments}
    else:
        maker = _class(architecture, network)
        source = _source(maker)
    try:
        plain: nn.Module = maker(**arguments).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{architecture} refuses its arguments {arguments}: {error}. Give those that it was built with."
        ) from error
    replaced = _differences(network, plain, architecture)
    for name, expression in replaced.items():
        plain.set_submodule(name, _layer(expression))
    _compare(network, plain, tensors, input_size, architecture)
    return Recipe(architecture, dict(model_args), source, replaced)


def _class(architecture: str, network: nn.Module) -> type[nn.Module]:
    """The class that a class path names, which must be the network's."""
    module, _, attribute = architecture.rpartition(".")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"No architecture {architecture!r}: {error}. Give a timm name or the class path of an nn.Module."
        ) from None
    own = type(network)
    if own is not found:
        raise ConfigError(f"The network is a {own.__qualname__}, not a {architecture}. Name its own class.")
    if "." in own.__qualname__:
        raise ConfigError(f"{architecture} is defined inside another class or function. Move it out of it.")
    return own


def _source(network_class: type[nn.Module]) -> str:
    """Text of the file that defines a class, which must be enough to build it."""
    name = network_class.__qualname__
    try:
        path = inspect.getsourcefile(network_class)
        text = Path(path or "").read_text(encoding="utf-8")
    except (OSError, TypeError):
        raise ConfigError(f"The source of {name} cannot be read. Define it in a file of its own.") from None
    foreign: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            foreign |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            foreign.add("." * node.level + (node.module or ""))
    foreign = {name for name in foreign if name.partition(".")[0] not in {*sys.stdlib_module_names, "torch"}}
    if foreign:
        raise ConfigError(
            f"{path} imports {', '.join(sorted(foreign))}, so that {name} cannot be built from it alone. "
            "Needed: a file that imports torch and the standard library only. Move the network to one."
        )
    return text


def _differences(network: nn.Module, plain: nn.Module, architecture: str, name: str = "") -> dict[str, str]:
    """The layers in which a network differs from its architecture, as expressions that make them."""
    ours, theirs = dict(network.named_children()), dict(plain.named_children())
    if type(network) is type(plain) and ours.keys() == theirs.keys():
        if not ours and repr(network) == repr(plain):
            return {}
        if ours:
            found: dict[str, str] = {}
            for key in ours:
                full = f"{name}.{key}" if name else key
                found |= _differences(ours[key], theirs[key], architecture, full)
            return found
    if not name or ours or type(network) is not getattr(nn, type(network).__name__, None):
        raise ConfigError(
            f"The network differs from {architecture} in {name or 'its structure'}, by other than single "
            "torch layers, and others could not build it. Give the class path of a module that builds it "
            "whole."
        )
    return {name: f"nn.{network!r}"}


def _layer(expression: str) -> nn.Module:
    """Make a torch layer from `nn.Layer(...)` with literal arguments, as the reader of the card will."""
    try:
        call = ast.parse(expression, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            raise ValueError("not the construction of a layer")
        positional = [ast.literal_eval(value) for value in call.args]
        named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
        layer: nn.Module = getattr(nn, call.func.attr)(*positional, **named)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{expression} cannot be built again: {error}. Give the class path of a module that builds it."
        ) from None
    return layer.eval()


def _compare(
    network: nn.Module,
    rebuilt: nn.Module,
    tensors: Mapping[str, Tensor],
    input_size: tuple[int, int, int],
    architecture: str,
) -> None:
    """Raise unless the rebuilt network, with these weights, gives the same outputs bit for bit."""
    dtype = next((value.dtype for value in network.parameters()), torch.float32)
    x = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    try:
        rebuilt.to(dtype).load_state_dict(tensors)
        with torch.inference_mode():
            equal = torch.equal(network(x), rebuilt(x))
    except RuntimeError as error:
        raise ConfigError(
            f"{architecture} with these arguments and images of {input_size} does not fit the network: "
            f"{error}. Give the architecture and the arguments that it was built with."
        ) from error
    if not equal:
        raise ConfigError(
            f"{architecture}, built again with these arguments and weights, gives other outputs than the "
            "network. Give the arguments that it was built with, or the class path of a module that "
            "builds it whole."
        )
