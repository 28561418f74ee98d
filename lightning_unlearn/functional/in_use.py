"""Which layers a network runs, and when: seen in one forward pass."""

import torch
from torch import Tensor, nn

from lightning_unlearn.functional.anatomy import CALLED_AT, NEVER, WEIGHT_LAYERS
from lightning_unlearn.functional.modes import differentiable_in

__all__ = ["look_at_calls"]


def look_at_calls(network: nn.Module, images: Tensor) -> object:
    """Note of each convolution and linear layer when it is called, for `anatomy`, and of those without part in the output so.

    A layer may be there for another loss, such as a projection head, or may be registered in another order than it runs in. It
    is without part where it is not called and no gradient leads to its weight. What is noted stays with the module and its
    copies, and is no part of its state.

    Args:
        network: The network; in eval mode during the pass, and otherwise as it was.
        images: A few, (B, C, H, W), floating.

    Returns:
        What the network gives, without a graph.
    """
    layers = [module for module in network.modules() if isinstance(module, WEIGHT_LAYERS)]
    names = {id(p): name for name, p in network.named_parameters()}
    calls: list[nn.Module] = []
    handles = [layer.register_forward_pre_hook(lambda module, _: calls.append(module)) for layer in layers]
    like = next(network.parameters(), images)
    weights = [layer.weight for layer in layers if id(layer.weight) in names]
    try:
        with differentiable_in(network, [names[id(weight)] for weight in weights]):
            output: object = network(images.to(like))
            differentiable = isinstance(output, Tensor) and output.requires_grad
            reached: set[int] = set()
            if isinstance(output, Tensor) and differentiable:
                found = torch.autograd.grad(output.sum(), weights, allow_unused=True)
                reached = {id(weight) for weight, grad in zip(weights, found, strict=True) if grad is not None}
    finally:
        for handle in handles:
            handle.remove()
    first = {id(layer): place for place, layer in reversed([*enumerate(calls)])}
    for layer in layers:
        unused = differentiable and id(layer.weight) in names and id(layer.weight) not in reached
        place = first.get(id(layer), NEVER if unused else None)
        if place is None:
            layer.__dict__.pop(CALLED_AT, None)
        else:
            layer.__dict__[CALLED_AT] = place
    return output.detach() if isinstance(output, Tensor) else output
