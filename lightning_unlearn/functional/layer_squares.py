"""Sums over samples of squared per-sample gradients, layer by layer, from a layer's input and its output gradients.

For one sample n of a batch, the gradient of a linear map's weight is G_n = sum over positions of g a^T, with g the gradient
of the loss at the output and a the input. What is wanted is sum_n G_n * G_n, elementwise. With one position it is one
product of matrices, (g^2)^T (a^2); with several, G_n has to exist, but only for as many samples as fit into the cache.

Every rule takes the layer, its input x (N, ...), output gradients (each (N, ...), one for each of several losses whose
squares are added), and the names of the wanted parameters; it gives name -> sum of squares, of the parameter's shape.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rule = Callable[[nn.Module, Tensor, Sequence[Tensor], Collection[str]], dict[str, Tensor]]

__all__ = ["Rule", "rule_for"]

# Bytes of per-sample gradients alive at once: about the second-level cache of a CPU core; on a GPU, where launching
# costs more than memory, much more. Measured on the layers of ResNets: 0.5 to 4 MiB are within 20 % of each other.
_CPU_BYTES = 2 * 2**20
_GPU_BYTES = 256 * 2**20


def rule_for(module: nn.Module) -> Rule | None:
    """The formula for a layer.

    A subclass gets the formula of its base, which may be wrong (standardised weights, a fused activation): the
    caller has to check it once against autograd.

    Args:
        module: Any module.

    Returns:
        The rule; None for modules without one.
    """
    return next((_RULES[cls] for cls in type(module).__mro__ if cls in _RULES), None)


def _linear(layer: nn.Module, x: Tensor, grads: Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    a = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)  # (N, T, I)
    gs = [g.flatten(1, -2) if g.dim() > 2 else g.unsqueeze(1) for g in grads]  # (N, T, O)
    if "weight" in wanted:
        if a.shape[1] == 1:
            squares = torch.stack([g.squeeze(1) for g in gs]).square_().sum(0) if len(gs) > 1 else gs[0].squeeze(1).square()
            found["weight"] = squares.mT @ a.squeeze(1).square()
        else:
            found["weight"] = _sum_of_squared_products([g.mT for g in gs], lambda part: a[part])
    if "bias" in wanted:
        found["bias"] = _squares(g.sum(1) for g in gs)
    return found


def _convolution(layer: nn.Module, x: Tensor, grads: Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
    found: dict[str, Tensor] = {}
    if "bias" in wanted:
        found["bias"] = _squares(g.flatten(2).sum(2) for g in grads)
    if "weight" not in wanted:
        return found
    stride, dilation, size = tuple(layer.stride), tuple(layer.dilation), tuple(layer.weight.shape)
    x, padding = _padded(layer, x)
    if isinstance(layer, nn.Conv1d):
        x, grads = x.unsqueeze(2), [g.unsqueeze(2) for g in grads]
        stride, dilation, padding, size = (1, *stride), (1, *dilation), (0, *padding), (*size[:2], 1, size[2])
    geometry = (size, stride, padding, dilation, layer.groups)
    by = _by_columns if _columns_are_faster(x, grads[0], size) else _by_grouped_convolution
    found["weight"] = by(x, grads, geometry).view(layer.weight.shape)
    return found


_Geometry = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int], int]


def _padded(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input with all padding that a plain convolution cannot do, and the padding that is left."""
    if isinstance(layer.padding, str):
        total = [d * (k - 1) if layer.padding == "same" else 0 for k, d in _zip(layer.kernel_size, layer.dilation)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in layer.padding]
    if layer.padding_mode == "zeros" and all(a == b for a, b in sides):
        return x, tuple(a for a, _ in sides)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, [p for side in reversed(sides) for p in side], mode=mode), (0,) * len(sides)


def _zip(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(a, b, strict=True))


def _columns_are_faster(x: Tensor, g: Tensor, size: Sequence[int]) -> bool:
    """Whether unfolding beats convolutions over blocks of samples."""
    # On a GPU always. On a CPU (figures of oneDNN) convolutions win by up to 3.6 on wide images, columns by up to 3 where
    # there are few output positions, few input channels, or a 1x1 kernel; from 1 MiB of weights on one convolution for
    # each sample is best.
    if x.device.type != "cpu":
        return True
    positions = g.shape[2] * g.shape[3]
    if math.prod(size) * x.element_size() > 2**20:
        return False
    few = size[1] == 1 or (size[1] < 8 and positions < 512)
    return few or positions <= 16 or size[2] * size[3] == 1


def _by_columns(x: Tensor, grads: Sequence[Tensor], geometry: _Geometry) -> Tensor:
    size, stride, padding, dilation, groups = geometry
    out, width = size[0], math.prod(size[1:])
    gs = [g.reshape(len(g), groups, out // groups, -1) for g in grads]  # (N, groups, O / groups, L)

    def columns(part: slice) -> Tensor:
        unfolded = F.unfold(x[part], tuple(size[2:]), tuple(dilation), tuple(padding), tuple(stride))
        return unfolded.view(len(unfolded), groups, width, -1).mT  # (n, groups, L, C / groups * k * k)

    return _sum_of_squared_products(gs, columns, gs[0].shape[-1] * groups * width)


def _by_grouped_convolution(x: Tensor, grads: Sequence[Tensor], geometry: _Geometry) -> Tensor:
    """A batch of n images as one image of n times the channels: the weight gradient then keeps samples apart."""
    size, stride, padding, dilation, groups = geometry
    total = x.new_zeros(tuple(size))
    each = math.prod(size) * x.element_size()
    if 1 < size[1] < 8:  # colour images: oneDNN is slow with groups of three channels
        each = _CPU_BYTES
    for part in _parts(len(x), each, x.device):
        block = x[part].reshape(1, -1, *x.shape[2:])
        n = block.shape[1] // x.shape[1]
        # The weight's values do not enter its gradient. `torch.nn.grad` expands one number, and copies it out.
        weight = x.new_empty((n * size[0], *size[1:]))
        for g in grads:
            own = torch.ops.aten.convolution_backward(
                g[part].reshape(1, -1, *g.shape[2:]),
                block,
                weight,
                None,
                stride,
                padding,
                dilation,
                False,
                [0] * len(stride),
                n * groups,
                [False, True, False],
            )[1]
            _add_squares(total, own.view(n, *size))
    return total


def _sum_of_squared_products(gs: Sequence[Tensor], rows: Callable[[slice], Tensor], extra: int = 0) -> Tensor:
    """Sum over samples and over `gs` of (g_n @ rows_n)^2.

    Args:
        gs: Each (N, ..., O, L).
        rows: Gives (n, ..., L, I) for a slice of samples.
        extra: Elements that `rows` has to build for each sample.

    Returns:
        (..., O, I).
    """
    count, first = len(gs[0]), rows(slice(0, 1))
    shape = (*gs[0].shape[1:-1], first.shape[-1])
    total = first.new_zeros(shape)
    each = (math.prod(shape) + extra) * first.element_size()
    for part in _parts(count, each, first.device):
        right = rows(part)
        for g in gs:
            _add_squares(total, g[part] @ right)
    return total


def _parts(count: int, bytes_each: int, device: torch.device) -> list[slice]:
    budget = _CPU_BYTES if device.type == "cpu" else _GPU_BYTES
    # Two or three samples at once are slower than one at a time, and not faster than four.
    size = budget // max(1, bytes_each)
    size = max(4, size) if bytes_each * 2 <= budget else 1
    return [slice(i, i + size) for i in range(0, count, size)]


def _add_squares(total: Tensor, own: Tensor) -> None:
    if len(own) == 1:
        total.addcmul_(own[0], own[0])
    else:
        total += own.square_().sum(0)


def _squares(values: Iterable[Tensor]) -> Tensor:
    """Sum over tensors (N, ...) and samples of the squares."""
    total: Tensor | None = None
    for value in values:
        own = value.square().sum(0)
        total = own if total is None else total + own
    assert total is not None
    return total


def _scale_and_shift(
    x: Tensor,
    grads: Sequence[Tensor],
    wanted: Collection[str],
    normalise: Callable[[Tensor], Tensor],
    over: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """For y = normalise(x) * weight + bias; `over` sums a (N, ...) tensor to (N, *parameter's shape)."""
    # Block by block, so that what lies between stays in the cache: up to 9 times faster than at once.
    totals: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        value = value.square().sum(0)
        totals[name] = totals[name] + value if name in totals else value

    for part in _parts(len(x), x[0].numel() * x.element_size(), x.device):
        normalised = normalise(x[part]) if "weight" in wanted else x
        for g in grads:
            if "weight" in wanted:
                add("weight", over(normalised * g[part]))
            if "bias" in wanted:
                add("bias", over(g[part]))
    return totals


def _over_positions(value: Tensor) -> Tensor:
    return value.flatten(2).sum(2) if value.dim() > 2 else value


def _batch_norm(layer: nn.Module, x: Tensor, grads: Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, var = layer.running_mean.to(x.dtype), layer.running_var.to(x.dtype)
    normalise = partial(F.batch_norm, running_mean=mean, running_var=var, training=False, eps=layer.eps)
    return _scale_and_shift(x, grads, wanted, normalise, _over_positions)


def _layer_norm(layer: nn.Module, x: Tensor, grads: Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    assert isinstance(layer, nn.LayerNorm)
    middle = tuple(range(1, x.dim() - len(layer.normalized_shape)))
    normalise = partial(F.layer_norm, normalized_shape=layer.normalized_shape, eps=layer.eps)
    return _scale_and_shift(x, grads, wanted, normalise, lambda value: value.sum(middle) if middle else value)


def _group_norm(layer: nn.Module, x: Tensor, grads: Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    assert isinstance(layer, nn.GroupNorm)
    normalise = partial(F.group_norm, num_groups=layer.num_groups, eps=layer.eps)
    return _scale_and_shift(x, grads, wanted, normalise, _over_positions)


_RULES: dict[type, Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}
