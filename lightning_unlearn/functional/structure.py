"""What a network is made of: its weight layers, head, blocks and last stage, and names of parameters by part.

Everything is read from the module tree in the order of registration, which for nearly all networks is the
order of the forward pass. Nothing runs, so it works for networks on any device, of any input size.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Literal, get_args

from torch import nn

Part = Literal["whole", "last_half", "last_stage", "head", "stem"]

__all__ = [
    "ParameterSelector",
    "Part",
    "blocks",
    "first_blocks",
    "head_name",
    "last_blocks",
    "last_half",
    "last_stage",
    "parameters_of",
    "weight_layers",
]

_WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_HEAD_NAMES = {"fc", "head", "heads", "classifier", "linear", "last_linear", "logits", "output"}


def weight_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name.

    Args:
        network: Any network.

    Returns:
        Name -> module, in the order of `named_modules`; a module that is registered twice appears once.
    """
    return {name: m for name, m in network.named_modules() if isinstance(m, _WEIGHT_LAYERS)}


def head_name(network: nn.Module) -> str:
    """Name of the layer that gives the logits: a linear layer or a 1x1 convolution.

    In this order: what the network itself says (`get_classifier()`, as in timm); the last such layer under
    a top-level child called fc, head, heads, classifier, linear, last_linear, logits or output; the last
    linear layer; the last 1x1 convolution.

    Args:
        network: Any classifier.

    Returns:
        The name of the module, as in `named_modules`.

    Raises:
        ValueError: If the network has no linear layer and no 1x1 convolution.
    """
    for name, child in network.named_children():
        # A wrapper (a LightningModule around its network) owns nothing itself: the child knows its head.
        if sum(1 for _ in child.parameters()) == sum(1 for _ in network.parameters()) > 0:
            return f"{name}.{head_name(child)}"
    layers = {name: m for name, m in weight_layers(network).items() if _is_pointwise(m)}
    own = getattr(network, "get_classifier", None)
    if callable(own):
        said = own()
        for name, module in layers.items():
            if module is said:
                return name
    named = [name for name in layers if name.split(".")[0].lower() in _HEAD_NAMES]
    linear = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    for names in (named, linear, list(layers)):
        if names:
            return names[-1]
    raise ValueError(
        f"{type(network).__name__} has no linear layer and no 1x1 convolution that could give the logits; "
        "needed: a classifier with such a head."
    )


def blocks(network: nn.Module) -> list[str]:
    """Names of residual, transformer or similar blocks, in order.

    A block is a module with a forward of its own (a plain Sequential, ModuleList or ModuleDict is not one:
    a shortcut, a stage), child of such a container, that holds at least two weight layers. A module most of
    whose weight layers lie in blocks inside it is a stage, and its inner blocks count; a block that merely
    contains a smaller one (squeeze and excitation) counts as a whole.

    Args:
        network: Any network.

    Returns:
        Module names; empty for plain chains of layers.
    """
    candidates = {
        name: sum(isinstance(m, _WEIGHT_LAYERS) for m in module.modules())
        for name, module in network.named_modules()
        if name and not _is_container(module) and _is_container(network.get_submodule(_parent(name)))
    }
    candidates = {name: count for name, count in candidates.items() if count >= 2}
    found: list[str] = []
    for name, count in candidates.items():  # parents come before their children
        inside = _outermost(other for other in candidates if other.startswith(f"{name}."))
        is_stage = 2 * sum(candidates[other] for other in inside) > count
        if not is_stage and not any(name.startswith(f"{block}.") for block in found):
            found.append(name)
    return found


def last_stage(network: nn.Module) -> list[str]:
    """Names of the modules that make up the last stage, without the head.

    * Blocks in two or more containers (ResNet, ConvNeXt): the blocks of the last container.
    * Blocks in one container (ViT): the last sixth of them, rounded up (2 of 12).
    * No blocks, convolutions (plain CNN): the last third of the convolutions, rounded up, and the hidden
      linear layers registered after them.
    * Linear layers only (MLP): the last hidden one; the head itself where there is no other.

    Args:
        network: Any classifier.

    Returns:
        Module names, in order.
    """
    found = blocks(network)
    if found:
        containers = list(dict.fromkeys(_parent(name) for name in found))
        if len(containers) > 1:
            return [name for name in found if _parent(name) == containers[-1]]
        return found[-math.ceil(len(found) / 6) :]
    head = head_name(network)
    hidden = {name: m for name, m in weight_layers(network).items() if name != head}
    convolutions = [name for name, m in hidden.items() if isinstance(m, _CONVOLUTIONS)]
    if convolutions:
        chosen = convolutions[-math.ceil(len(convolutions) / 3) :]
        names = list(hidden)
        return names[names.index(chosen[0]) :]
    return list(hidden)[-1:] or [head]


def last_half(network: nn.Module) -> list[str]:
    """Names of the modules that make up the second half of the network, without the head.

    The last half of the blocks, rounded up (layers 3 and 4 of a ResNet-18); where there are no blocks, of the weight layers
    before the head; the head itself where there is no other.

    Args:
        network: Any classifier.

    Returns:
        Module names, in order.
    """
    head = head_name(network)
    found = blocks(network) or [name for name in weight_layers(network) if name != head]
    return found[len(found) // 2 :] or [head]


def parameters_of(network: nn.Module, part: Part) -> list[str]:
    """Names of the parameters of one part of a network.

    Args:
        network: Any classifier.
        part: `whole`: all; `last_half`, `last_stage`: see the functions; `head`: the layer that gives the logits; `stem`:
            everything before the first block (before the second weight layer where there are no blocks).

    Returns:
        Parameter names in the order of `named_parameters`.

    Raises:
        ValueError: If `part` is none of these.
    """
    if part == "whole":
        return [name for name, _ in network.named_parameters()]
    if part == "last_half":
        return _parameters_under(network, last_half(network))
    if part == "last_stage":
        return _parameters_under(network, last_stage(network))
    if part == "head":
        return _parameters_under(network, [head_name(network)])
    if part == "stem":
        return first_blocks(network, 1)
    raise ValueError(f"part is {part!r}; needed: one of {', '.join(get_args(Part))}.")


def first_blocks(network: nn.Module, k: int) -> list[str]:
    """Names of the parameters of the first `k` blocks, where the stem counts as the first block.

    The head counts as the last one. The chain is: stem (everything before the first block), each block
    together with what is registered between it and the block before (the downsampling of a ConvNeXt stage),
    head. What follows the last block but is not the head (the final norm of a ViT) belongs to the last block.
    Where there are no blocks, each weight layer with the parameters up to the next one (its norm) counts as
    a block.

    Args:
        network: Any classifier.
        k: How many, from 1 to the length of the chain.

    Returns:
        Parameter names in the order of `named_parameters`.

    Raises:
        ValueError: If `k` is below 1 or above the length of the chain.
    """
    chain = _chain(network)
    if not 1 <= k <= len(chain):
        raise ValueError(_wrong_count(network, k, len(chain)))
    return _in_order(network, chain[:k])


def last_blocks(network: nn.Module, k: int) -> list[str]:
    """Names of the parameters of the last `k` blocks of the chain of `first_blocks`: with 1 the head alone.

    Args:
        network: Any classifier.
        k: How many, from 1 to the length of the chain.

    Returns:
        Parameter names in the order of `named_parameters`.

    Raises:
        ValueError: If `k` is below 1 or above the length of the chain.
    """
    chain = _chain(network)
    if not 1 <= k <= len(chain):
        raise ValueError(_wrong_count(network, k, len(chain)))
    return _in_order(network, chain[-k:])


class ParameterSelector:
    """Chooses parameters by part, pattern or position; the union of all that is given.

    Plain arguments, so that it can be written in YAML, and picklable.

    Args:
        parts: Parts of the network. The default `whole` gives way as soon as patterns or blocks are given.
        patterns: Shell patterns (`*`, `?`, `[...]`) for full parameter names, such as `layer4.*.weight`.
        last_blocks: The last so many blocks, the head counted as the last; see `last_blocks`.
        first_blocks: The first so many blocks, the stem counted as the first; see `first_blocks`.

    Raises:
        ValueError: If a part is unknown, or a number of blocks negative.
    """

    def __init__(
        self,
        parts: Sequence[Part] = ("whole",),
        patterns: Sequence[str] = (),
        last_blocks: int = 0,
        first_blocks: int = 0,
    ) -> None:
        # A bare string is a sequence of letters: never what was meant.
        self.parts: list[str] = [parts] if isinstance(parts, str) else list(parts)
        self.patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        self.last_blocks = last_blocks
        self.first_blocks = first_blocks
        known: tuple[str, ...] = get_args(Part)
        wrong = [part for part in self.parts if part not in known]
        if wrong:
            raise ValueError(f"parts holds {wrong[0]!r}; needed: {', '.join(known)}.")
        if min(last_blocks, first_blocks) < 0:
            raise ValueError(f"first_blocks is {first_blocks}, last_blocks {last_blocks}; needed: 0 or more.")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(parts={self.parts}, patterns={self.patterns}, "
            f"last_blocks={self.last_blocks}, first_blocks={self.first_blocks})"
        )

    def names(self, network: nn.Module) -> list[str]:
        """Names of the chosen parameters.

        Args:
            network: The network to choose from.

        Returns:
            Parameter names, each once, in the order of `named_parameters`; never empty.

        Raises:
            ValueError: If a pattern matches no parameter (the nearest names are given), or nothing is chosen.
        """
        every = [name for name, _ in network.named_parameters()]
        narrowed = bool(self.patterns or self.last_blocks or self.first_blocks)
        chosen: set[str] = set()
        for part in self.parts:
            if not (part == "whole" and narrowed):
                chosen.update(parameters_of(network, part))  # type: ignore[arg-type]
        for pattern in self.patterns:
            matched = [name for name in every if fnmatchcase(name, pattern)]
            if not matched:
                raise ValueError(_no_match(network, pattern, every))
            chosen.update(matched)
        if self.last_blocks:
            chosen.update(last_blocks(network, self.last_blocks))
        if self.first_blocks:
            chosen.update(first_blocks(network, self.first_blocks))
        if not chosen:
            raise ValueError(f"{self!r} chooses no parameter; needed: at least one part, pattern or block.")
        return [name for name in every if name in chosen]


def _is_container(module: nn.Module) -> bool:
    """Whether the module only holds others; a Sequential with its own forward may be a residual block."""
    plain: Callable[..., object] = nn.Sequential.forward
    if isinstance(module, nn.Sequential):
        return type(module).forward is plain
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def _is_pointwise(module: nn.Module) -> bool:
    if isinstance(module, _CONVOLUTIONS):
        return all(k == 1 for k in module.kernel_size) and module.groups == 1
    return isinstance(module, nn.Linear)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _outermost(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if not any(name.startswith(f"{other}.") for other in found):
            found.append(name)
    return found


def _parameters_under(network: nn.Module, modules: Iterable[str]) -> list[str]:
    prefixes = tuple(f"{name}." if name else "" for name in modules)
    return [name for name, _ in network.named_parameters() if name.startswith(prefixes)]


def _chain(network: nn.Module) -> list[list[str]]:
    """Parameter names of stem, blocks and head: a partition of all parameters."""
    head = set(_parameters_under(network, [head_name(network)]))
    every = [name for name, _ in network.named_parameters()]
    body = [name for name in every if name not in head]
    starts = blocks(network)
    stem: list[str] = []
    if starts:
        prefixes = tuple(f"{name}." for name in starts)
        stem = list(takewhile(lambda name: not name.startswith(prefixes), body))
        ordered = body[len(stem) :][::-1]  # from the back: a gap belongs to the block after it
        current = prefixes[-1]
    else:
        prefixes = tuple(f"{name}." for name in weight_layers(network) if name != head_name(network))
        ordered = body  # from the front: a gap (a norm) belongs to the layer before it
        current = prefixes[0] if prefixes else ""
    units: dict[str, list[str]] = {prefix: [] for prefix in prefixes}
    for name in ordered:
        current = next((prefix for prefix in prefixes if name.startswith(prefix)), current)
        units.setdefault(current, []).append(name)
    return [unit for unit in (stem, *units.values(), [name for name in every if name in head]) if unit]


def _in_order(network: nn.Module, units: list[list[str]]) -> list[str]:
    chosen = {name for unit in units for name in unit}
    return [name for name, _ in network.named_parameters() if name in chosen]


def _wrong_count(network: nn.Module, k: int, length: int) -> str:
    return f"{k} blocks were asked for; {type(network).__name__} has {length}, stem and head included; needed: 1 to {length}."


def _no_match(network: nn.Module, pattern: str, every: list[str]) -> str:
    module = pattern.rstrip(".*")
    near = difflib.get_close_matches(pattern, every, 4, 0.4)
    if any(name.startswith(f"{module}.") for name in every):
        near = [f"{module}.*"]
    elif not near:
        near = difflib.get_close_matches(module, [name for name, _ in network.named_modules() if name], 4, 0.3)
    return (
        f"The pattern {pattern!r} matches no parameter of {type(network).__name__}; "
        f"nearest: {', '.join(near or every[:4])}. Patterns are matched against full parameter names."
    )
