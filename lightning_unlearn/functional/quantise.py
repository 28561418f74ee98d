"""Weights as 8-bit integers, one scale per output channel.

    q = round(w / s) in -127 ... 127,   s = max |w| / 127 over the weights of an output channel

Symmetric, weights only, from the weights alone: no data is needed, and activations stay in floating point (Krishnamoorthi
2018, arXiv 1806.08342, section 3.1.3). No weight moves by more than s / 2. Rounding can undo small weight edits: unlearned
language models gave back what they had forgotten after 4-bit rounding (Zhang et al., ICLR 2025), so forgetting is measured
again on the rounded weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["SCALE", "dequantise_weights", "quantise_weights"]

SCALE = ".scale"
_LARGEST = 127


def quantise_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round matrices and kernels to int8.

    Args:
        state: A state dict. Tensors of floating type, of two dimensions or more, whose name ends in `weight` are rounded;
            their first dimension is taken for the output channels. All others (biases, normalisation, position embeddings,
            statistics) stay as they are, the very same tensors.

    Returns:
        The same names in the same order; behind each rounded `NAME`, int8 of the same shape, stands `NAME.scale`, (C,),
        float32, or float64 for float64 weights.

    Raises:
        ValueError: A weight is not finite.
    """
    quantised: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.dim() < 2 or value.numel() == 0 or not value.is_floating_point() or not name.endswith("weight"):
            quantised[name] = value
            continue
        # Half-precision scales would lose more than the rounding itself.
        weight = value.detach().to(torch.promote_types(value.dtype, torch.float32))
        largest = weight.flatten(1).abs().amax(1)
        if not bool(largest.isfinite().all()):
            raise ValueError(f"{name} has NaN or infinite weights, which no integer stands for. Give an earlier checkpoint.")
        scale = largest / _LARGEST
        # A channel of zeros stays one. So does one so small that its scale underflows.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        rounded = (weight / _across(scale, weight)).round().clamp(-_LARGEST, _LARGEST)
        quantised[name] = rounded.to(torch.int8).contiguous()
        quantised[name + SCALE] = scale
    return quantised


def dequantise_weights(quantised: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that the integers stand for, ready for `load_state_dict`.

    Args:
        quantised: What `quantise_weights` gave, also after a file.

    Returns:
        A state dict with the names and the shapes of the original one; rounded weights have the type of their scale.
    """
    state: dict[str, Tensor] = {}
    for name, value in quantised.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in quantised:
            continue
        scale = quantised.get(name + SCALE)
        state[name] = value if scale is None else value.to(scale.dtype) * _across(scale, value)
    return state


def _across(scale: Tensor, weight: Tensor) -> Tensor:
    """A scale per channel in the shape that multiplies the weights, (C, 1, ...)."""
    return scale.view(-1, *[1] * (weight.dim() - 1))
