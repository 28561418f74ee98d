"""Cost without a clock: images forwarded and backwarded."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Work"]


@dataclass
class Work:
    """Counts images through a network, each by the share of the network that runs.

    A backward pass costs two forward passes, so training on an image costs 3.

    Attributes:
        forward: Images forwarded.
        backward: Images backwarded.
        backward_share: Share of the network that a backward pass runs through: less than 1 where its beginning is frozen.
    """

    forward: float = 0.0
    backward: float = 0.0
    backward_share: float = 1.0

    @property
    def total(self) -> float:
        """Cost in forward passes of one image."""
        return self.forward + 2 * self.backward

    def watch(self, module: nn.Module, share: float = 1.0) -> RemovableHandle:
        """Count every call of a module, and every backward pass through what it gave.

        Args:
            module: The network, or a part of it.
            share: Its share of the cost of the whole network, in 0 ... 1.

        Returns:
            A handle whose `remove` ends the counting.
        """

        def count_back(images: float) -> None:
            self.backward += images * min(1.0, self.backward_share / share)

        def count(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if not (isinstance(output, torch.Tensor) and isinstance(inputs[0], torch.Tensor)):
                return  # the network is being recorded, not run
            images = len(inputs[0]) * share
            self.forward += images
            if torch.is_grad_enabled() and output.requires_grad:
                output.register_hook(lambda _: count_back(images))  # type: ignore[no-untyped-call]  # untyped in torch

        return module.register_forward_hook(count)
