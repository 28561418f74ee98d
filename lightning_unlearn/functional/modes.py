"""Train and eval mode of the parts of a network, and what gets a gradient."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["differentiable_in", "set_modes"]


def set_modes(module: nn.Module, trained: set[str], prefix: str = "") -> None:
    """Train mode for the modules all of whose parameters are trained, eval mode for the others.

    Frozen modules then keep their BatchNorm statistics.

    Args:
        module: The network.
        trained: Names of trained parameters, as seen from the outermost module.
        prefix: Name of `module` in it.
    """
    names = [prefix + name for name, _ in module.named_parameters()]
    if names and all(name in trained for name in names):
        module.train()
        return
    module.eval()
    for name, child in module.named_children():
        set_modes(child, trained, f"{prefix}{name}.")


@contextmanager
def differentiable_in(network: nn.Module, names: Sequence[str]) -> Generator[None]:
    """Eval mode, no autocast, gradients in the named parameters only; all put back afterwards.

    Args:
        network: Any network.
        names: Parameter names.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    chosen = set(names)
    device = next((p.device.type for p in network.parameters()), "cpu")
    try:
        network.eval()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in chosen)
        with torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
