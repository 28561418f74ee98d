"""K networks of one architecture as one network with K times the channels."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

__all__ = ["Linears", "merge"]

# What grows K-fold in layers whose channels of one model do not touch those of another.
_GROWING: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), ("in_channels", "out_channels", "groups")),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), ("num_features",)),
    nn.GroupNorm: ("num_groups", "num_channels"),
}
# Where a gradient comes back in another memory format than the activation has.
_FORMAT_ENDS = (torch.flatten, "flatten", "mean", torch.mean)


class Linears(nn.Module):
    """K linear layers as one batched matrix product.

    Args:
        layers: K `nn.Linear` of one shape.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stacked([layer.weight for layer in layers], torch.stack)
        self.bias = None if layers[0].bias is None else _stacked([layer.bias for layer in layers], torch.stack)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, K * O) of inputs (B, K * I)."""
        x = x.view(len(x), len(self.weight), -1).transpose(0, 1)
        out = torch.bmm(x, self.weight.mT) if self.bias is None else torch.baddbmm(self.bias[:, None], x, self.weight.mT)
        return out.transpose(0, 1).flatten(1)


def merge(networks: Sequence[nn.Module], channels_last: bool = False) -> fx.GraphModule:
    """One network that computes K networks side by side in its channels.

    Activations are (B, K * C, ...): linear layers become a batched matrix product, convolutions have K times the groups,
    BatchNorm has K * C channels and so the statistics of each network, GroupNorm K times the groups. Everything without
    parameters stays: what works element by element or within a channel is right, and anything else is not, so the result must
    be compared with the networks on an example (`functional.ensemble` does).

    Args:
        networks: K networks of one architecture, in the modes in which the result is to run.
        channels_last: Whether convolutions hold their weights, and get their gradients, with channels last.

    Returns:
        The network; parameters have the names of those of one network.

    Raises:
        ValueError: The architecture cannot be traced, uses a parameter outside a layer, or has a layer that has no such form.
    """
    names = len(list(networks[0].named_parameters(remove_duplicate=False)))
    if len(list(networks[0].parameters())) < names:
        raise ValueError("some of its layers share parameters")
    try:
        graph = fx.Tracer().trace(networks[0])
    except Exception as error:  # a forward method may fail in any way when it is traced
        raise ValueError(f"it cannot be traced: {error}") from error
    merged = fx.GraphModule(copy.deepcopy(networks[0]), graph)
    for node in list(graph.nodes):
        if node.op == "get_attr":
            raise ValueError(f"it uses {node.target} outside a layer")
        if node.op == "call_module":
            layers = [network.get_submodule(str(node.target)) for network in networks]
            merged.set_submodule(str(node.target), _merged_layer(layers))
        if channels_last and _ends_format(node, merged):
            with graph.inserting_before(node):
                aligned = graph.call_function(_align_gradient, (node.args[0],))
            node.args = (aligned, *node.args[1:])
    merged.recompile()
    if len(list(merged.parameters())) < names:
        raise ValueError("some of its parameters are never used")
    return merged.to(memory_format=torch.channels_last) if channels_last else merged


def _merged_layer(layers: Sequence[nn.Module]) -> nn.Module:
    first = layers[0]
    if type(first) is nn.Linear:
        return Linears([layer for layer in layers if isinstance(layer, nn.Linear)])
    merged = copy.deepcopy(first)
    if not [*first.parameters(), *first.buffers()]:
        return merged
    if type(first) not in _GROWING:
        raise ValueError(f"{type(first).__name__} has no form for many models")
    for name in _GROWING[type(first)]:
        setattr(merged, name, getattr(first, name) * len(layers))
    for name in dict(first.named_parameters()):
        setattr(merged, name, _stacked([layer.get_parameter(name) for layer in layers], torch.cat))
    for name, value in first.named_buffers():
        values = [layer.get_buffer(name) for layer in layers]
        if value.dim() == 0 and any(bool(other != value) for other in values):
            raise ValueError(f"{name} of {type(first).__name__} differs between the models")
        setattr(merged, name, torch.cat(values) if value.dim() else value.clone())
    return merged


def _stacked(parameters: Sequence[Tensor], join: Callable[[list[Tensor]], Tensor]) -> nn.Parameter:
    return nn.Parameter(join([p.detach() for p in parameters]).contiguous(), requires_grad=parameters[0].requires_grad)


def _ends_format(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), nn.Flatten)
    return node.op in ("call_function", "call_method") and node.target in _FORMAT_ENDS


def _align_gradient(x: Tensor) -> Tensor:
    """Give the gradient of `x` its own memory format: element-wise kernels are several times slower where the two differ."""
    if x.dim() == 4 and x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]  # torch's
    return x
