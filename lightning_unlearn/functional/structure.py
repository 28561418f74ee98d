"""Names of the parameters of a part of a network, and what chooses among them."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Literal, get_args

from torch import nn

from lightning_unlearn.functional.anatomy import blocks, head_name, last_half, last_stage, unused_layers, weight_layers

Part = Literal["whole", "last_half", "last_stage", "head", "stem"]

__all__ = ["ParameterSelector", "Part", "first_blocks", "last_blocks", "parameters_of"]


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


def _parameters_under(network: nn.Module, modules: Iterable[str]) -> list[str]:
    prefixes = tuple(f"{name}." if name else "" for name in modules)
    return [name for name, _ in network.named_parameters() if name.startswith(prefixes)]


def _chain(network: nn.Module) -> list[list[str]]:
    """Parameter names of stem, blocks and head: a partition of all parameters, but those of layers that are not used."""
    head = set(_parameters_under(network, [head_name(network)]))
    unused = set(_parameters_under(network, unused_layers(network)))
    every = [name for name, _ in network.named_parameters() if name not in unused]
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
