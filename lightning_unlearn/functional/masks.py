"""Binary masks over weights, learnt through a straight-through estimator, and the decay that uses them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["binary_mask", "decay", "l1_of_scores", "masked_call", "share_on"]


class _StraightThrough(torch.autograd.Function):
    """Step function forward, identity backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, threshold: float) -> Tensor:
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: object, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None


def binary_mask(scores: Tensor, threshold: float) -> Tensor:
    """1 where a score is above the threshold, else 0; the gradient passes to the scores unchanged.

    Piggyback (Mallya et al., ECCV 2018): scores start at 1e-2, the threshold is 5e-3.

    Args:
        scores: Any shape, floating point.
        threshold: A score equal to it is off.

    Returns:
        Zeros and ones of the shape and dtype of `scores`.
    """
    mask: Tensor = _StraightThrough.apply(scores, threshold)
    return mask


def share_on(masks: Tensor | Iterable[Tensor]) -> Tensor:
    """Share of ones, of one mask or over several together.

    Args:
        masks: One mask or several, zeros and ones (or booleans) of any shapes.

    Returns:
        A scalar in [0, 1], float32, on the masks' device: no synchronisation until it is read.

    Raises:
        ValueError: If there is no element to count.
    """
    several = [masks] if isinstance(masks, Tensor) else list(masks)
    count = sum(mask.numel() for mask in several)
    if not count:
        raise ValueError("There is no mask, or only empty ones; needed: at least one element.")
    ones = torch.stack([torch.count_nonzero(mask) for mask in several]).sum()
    return ones.float() / count


def l1_of_scores(scores: Iterable[Tensor]) -> Tensor:
    """Sum of the absolute scores over all tensors: the pressure that turns masks off.

    Args:
        scores: At least one tensor.

    Returns:
        A scalar, differentiable.
    """
    return torch.stack([torch.linalg.vector_norm(score, 1) for score in scores]).sum()


def masked_call(module: nn.Module, masks: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Output of a module whose weights are multiplied by masks, W * b, without changing the module.

    Args:
        module: Any module.
        masks: Parameter name -> mask of the parameter's shape; others are used as they are.
        x: The module's input.

    Returns:
        The module's output; gradients reach the masks (and those weights that require them).

    Raises:
        ValueError: If a mask names no parameter of the module.
    """
    own = dict(module.named_parameters())
    unknown = [name for name in masks if name not in own]
    if unknown:
        raise ValueError(f"masks holds {unknown[0]!r}, which {type(module).__name__} does not have.")
    out: Tensor = functional_call(module, {name: own[name] * mask for name, mask in masks.items()}, (x,))
    return out


@torch.no_grad()
def decay(weights: Sequence[Tensor], masks: Sequence[Tensor] | None, factor: float) -> None:
    """Multiply weights by a factor in place, everywhere or where a mask is on: W <- W * factor.

    One pass over memory; elements where a mask is off keep their bits.

    Args:
        weights: Tensors to change.
        masks: One for each weight, of its shape: decays where nonzero. None decays all elements.
        factor: Any finite number; 0 prunes.

    Raises:
        ValueError: If there are not as many masks as weights, or a shape differs.
    """
    if masks is None:
        if weights:
            torch._foreach_mul_(list(weights), factor)
        return
    if [mask.shape for mask in masks] != [weight.shape for weight in weights]:
        raise ValueError(
            f"{len(masks)} masks of shapes {[tuple(mask.shape) for mask in masks][:3]} were given for "
            f"{len(weights)} weights of shapes {[tuple(weight.shape) for weight in weights][:3]}; "
            "needed: one of the same shape each."
        )
    for weight, mask in zip(weights, masks, strict=True):
        on = mask if mask.dtype is torch.bool else mask != 0
        weight.copy_(torch.where(on, weight * factor, weight))
