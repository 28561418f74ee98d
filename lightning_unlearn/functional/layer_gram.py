"""Inner products of per-sample gradients layer by layer, without the gradients themselves.

One forward and one backward pass give each layer's input and the gradient at its output. For a linear layer the gradient
of sample n is G_n = sum over positions t of e_nt a_nt^T, with a the input (a column of ones behind it for the bias) and e the
output gradient, and <G_n, G_m> = sum over s, t of (a_ns . a_mt) (e_ns . e_mt): with one position (A A^T + 1) * (E E^T), a
product of two N x N matrices instead of one over all weights. A convolution is the same with its unfolded input. With many
positions and few weights it is cheaper to make the gradients of this layer alone.

Two samples are also done one by one by autograd; a layer whose formula does not fit is left to the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lightning_unlearn.functional.residuals import label_residual

__all__ = ["layer_gram"]

_CHUNK = 128  # samples in one pass, at most
_BLOCK_BYTES = 64 * 2**20  # of products between positions
_AGREEMENT = 1e-3  # with autograd, relative: float32 gives about 1e-5, a formula that does not fit 1


@dataclass
class _Factors:
    """A (N, T, I) and E (N, T, O), whose products over positions are the gradients; or, where E is None, gradients (N, P)."""

    a: Tensor
    e: Tensor | None

    @property
    def bytes_each(self) -> int:
        """Bytes for one sample."""
        numbers = self.a[0].numel() + (0 if self.e is None else self.e[0].numel())
        return numbers * self.a.element_size()

    def products(self) -> Tensor:
        """Inner products of the gradients, (N, N)."""
        if self.e is None:
            return self.a @ self.a.mT
        n, positions, _ = self.a.shape
        a, e = self.a.flatten(0, 1), self.e.flatten(0, 1)
        if positions == 1:
            return (a @ a.mT).mul_(e @ e.mT)
        rows = max(1, _BLOCK_BYTES // (n * positions**2 * a.element_size())) * positions
        pairs = [(a_of @ a.mT).mul_(e_of @ e.mT) for a_of, e_of in zip(torch.split(a, rows), torch.split(e, rows), strict=True)]
        return torch.cat([block.view(-1, positions, n, positions).sum((1, 3)) for block in pairs])

    def along(self, v: Tensor) -> Tensor:
        """Inner products of the gradients with v (O, I), or (P,): (N,)."""
        return self.a @ v.flatten() if self.e is None else ((self.e @ v) * self.a).sum((1, 2))


# Input (N, ...), output gradient (N, ...), and which of weight and bias are wanted.
_Rule = Callable[[nn.Module, Tensor, Tensor, Sequence[str]], _Factors]


def layer_gram(
    network: nn.Module, x: Tensor, labels: Tensor, vector: Mapping[str, Tensor], kept_bytes: int
) -> tuple[Tensor, Tensor, list[str], int]:
    """Inner products of per-sample gradients of the cross-entropy: with each other and with a vector, as far as formulas go.

    Use it in `differentiable_in`.

    Args:
        network: Gives logits (N, K); in eval mode, each sample's on its own.
        x: Input (N, ...).
        labels: (N,), int64.
        vector: v (P,), by parameter name, of the parameters' shapes.
        kept_bytes: Of inputs and output gradients that are kept at once; more layers take further passes over the samples.

    Returns:
        Over the parameters that formulas serve G G^T (N, N) and G v (N,), float64; the names of the others; and how often
        the samples went through the network.
    """
    products = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    along = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    layers, sizes = _served(network, x[:2], vector)
    served: set[str] = set()
    groups: list[list[str]] = []
    room = 0
    for module, own in layers.items():
        need = sizes[module] * len(x)
        if need > kept_bytes:
            continue
        served |= set(own.values())
        if need > room:
            groups.append([])
            room = kept_bytes
        groups[-1].append(module)
        room -= need
    for group in groups:
        parts: dict[str, list[_Factors]] = {module: [] for module in group}
        for part, of in zip(torch.split(x, _CHUNK), torch.split(labels, _CHUNK), strict=True):
            for module, factors in _factors(network, part, of, {module: layers[module] for module in group}).items():
                parts[module].append(factors)
        for module in group:
            made = parts.pop(module)
            e = [factors.e for factors in made if factors.e is not None]
            whole = _Factors(torch.cat([factors.a for factors in made]), torch.cat(e) if e else None)
            products += whole.products().double()
            along += whole.along(_of_layer(vector, layers[module]).to(whole.a)).double()
    return products, along, [name for name in vector if name not in served], len(groups)


def _served(network: nn.Module, x: Tensor, vector: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    """Layers with a formula that agrees with autograd: names of their parameters, local to full, and bytes for one sample."""
    owners: dict[int, int] = {}
    for owner in network.modules():
        for parameter in owner.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers: dict[str, dict[str, str]] = {}
    for name, layer in network.named_modules():
        own = {local: f"{name}.{local}" if name else local for local, _ in layer.named_parameters(recurse=False)}
        own = {local: full for local, full in own.items() if full in vector}
        shared = any(owners[id(network.get_parameter(full))] > 1 for full in own.values())
        if own and not shared and set(own) <= {"weight", "bias"} and _rule_for(layer) is not None:
            layers[name] = own
    wanted = [full for own in layers.values() for full in own.values()]
    if not wanted:
        return {}, {}
    rows = []
    with torch.no_grad():
        # A sample that the network is sure of has hardly a gradient at its own label, and nothing could differ.
        labels = network(x).argmin(1)
    for image, label in zip(torch.split(x, 1), torch.split(labels, 1), strict=True):
        logits, parameters = network(image), [network.get_parameter(name) for name in wanted]
        grads = torch.autograd.grad(logits, parameters, label_residual(logits, label), materialize_grads=True)
        rows.append(dict(zip(wanted, grads, strict=True)))
    found = _factors(network, x, labels, layers)
    sizes = {}
    for module, factors in found.items():
        dense = torch.stack([_of_layer(row, layers[module]).flatten() for row in rows])
        v = _of_layer(vector, layers[module]).to(dense)
        expected, length = dense @ dense.mT, float(dense.norm())
        apart = float((factors.products() - expected).norm()) - _AGREEMENT * length**2
        # The order of the elements shows only beside a vector.
        apart_along = float((factors.along(v) - dense @ v.flatten()).norm()) - _AGREEMENT * length * float(v.norm())
        if length > 0 and max(apart, apart_along) <= 0:
            sizes[module] = factors.bytes_each
    return {module: own for module, own in layers.items() if module in sizes}, sizes


def _of_layer(values: Mapping[str, Tensor], own: Mapping[str, str]) -> Tensor:
    """Values of weight and bias as one matrix (O, I), the bias as its last column."""
    return torch.cat([values[own[local]].flatten(1) if values[own[local]].dim() > 1 else values[own[local]].unsqueeze(1)
                      for local in ("weight", "bias") if local in own], 1)  # fmt: skip


def _factors(network: nn.Module, x: Tensor, labels: Tensor, layers: Mapping[str, Mapping[str, str]]) -> dict[str, _Factors]:
    """Factors of the layers that were called once, from one tensor to another, with the samples first."""
    calls: dict[str, list[tuple[Tensor, GradientEdge] | None]] = {name: [] for name in layers}
    handles = [network.get_submodule(name).register_forward_hook(_keeper(made, len(x))) for name, made in calls.items()]
    try:
        logits = network(x)
    finally:
        for handle in handles:
            handle.remove()
    kept = {name: made[0] for name, made in calls.items() if len(made) == 1 and made[0] is not None}
    if not kept:
        return {}
    edges = [edge for _, edge in kept.values()]
    grads = torch.autograd.grad(logits, edges, label_residual(logits, labels), allow_unused=True)
    found = {}
    with torch.no_grad():
        for (name, (of, _)), grad in zip(kept.items(), grads, strict=True):
            module = network.get_submodule(name)
            rule = _rule_for(module)
            if grad is not None and rule is not None:
                found[name] = rule(module, of, grad, list(layers[name]))
    return found


def _keeper(
    calls: list[tuple[Tensor, GradientEdge] | None], count: int
) -> Callable[[nn.Module, tuple[object, ...], object], None]:
    def keep(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        call = None
        x = args[0] if len(args) == 1 else None
        if isinstance(x, Tensor) and isinstance(output, Tensor) and len(x) == len(output) == count and output.requires_grad:
            call = (x.detach(), get_gradient_edge(output))
        calls.append(call)

    return keep


def _rule_for(module: nn.Module) -> _Rule | None:
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return _convolution if plain else None
    return next((rule for kind, rule in _RULES.items() if isinstance(module, kind)), None)


def _bilinear(a: Tensor, e: Tensor, wanted: Sequence[str]) -> _Factors:
    """From a (N, T, I) and e (N, T, O), whichever is cheaper."""
    ones = a.new_ones(*a.shape[:2], 1)
    a = torch.cat([a, ones], 2) if len(wanted) == 2 else a if "weight" in wanted else ones
    positions, inputs, outputs = a.shape[1], a.shape[2], e.shape[2]
    if positions == 1 or positions**2 * (inputs + outputs) < inputs * outputs:
        return _Factors(a, e)
    return _Factors((e.mT @ a).flatten(1), None)


def _linear(layer: nn.Module, x: Tensor, g: Tensor, wanted: Sequence[str]) -> _Factors:
    a, e = (t.flatten(1, -2) if t.dim() > 2 else t.unsqueeze(1) for t in (x, g))
    return _bilinear(a, e, wanted)


def _convolution(layer: nn.Module, x: Tensor, g: Tensor, wanted: Sequence[str]) -> _Factors:
    assert isinstance(layer, nn.Conv2d)
    assert not isinstance(layer.padding, str)
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return _bilinear(columns.mT, g.flatten(2).mT, wanted)


def _scale_and_shift(layer: nn.Module, x: Tensor, g: Tensor, wanted: Sequence[str]) -> _Factors:
    """For y = normalise(x) * weight + bias."""
    if isinstance(layer, nn.LayerNorm):
        normalised = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        last = len(layer.normalized_shape)
        parts = [part.flatten(1, -last - 1).sum(1) if x.dim() > last + 1 else part for part in (normalised * g, g)]
    else:
        if isinstance(layer, nn.GroupNorm):
            normalised = F.group_norm(x, layer.num_groups, eps=layer.eps)
        else:
            assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
            normalised = F.batch_norm(
                x, layer.running_mean, layer.running_var, eps=layer.eps, training=layer.running_mean is None
            )
        parts = [part.flatten(2).sum(2) if x.dim() > 2 else part for part in (normalised * g, g)]
    rows = torch.stack([part.flatten(1) for part, name in zip(parts, ("weight", "bias"), strict=True) if name in wanted], 2)
    return _Factors(rows.flatten(1), None)


_RULES: dict[type[nn.Module], _Rule] = {
    nn.Linear: _linear,
    nn.modules.batchnorm._BatchNorm: _scale_and_shift,
    nn.LayerNorm: _scale_and_shift,
    nn.GroupNorm: _scale_and_shift,
}
