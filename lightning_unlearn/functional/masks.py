"""Binary masks over weights, learnt through a straight-through estimator, and the decay that uses them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["decay", "l1_of_scores", "masked", "masked_call", "share_on"]


class _Context(Protocol):
    """What is asked of torch's context, whose annotations do not name it."""

    threshold: float
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Masked(torch.autograd.Function):
    """W * 1[score > threshold] forward; backward as if the step function were the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, scores: Tensor, threshold: float) -> Tensor:
        return torch.where(scores > threshold, weight, 0)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        weight, scores, ctx.threshold = inputs
        ctx.save_for_backward(weight, scores)

    @staticmethod
    def backward(ctx: _Context, grad_output: Tensor) -> tuple[Tensor | None, Tensor, None]:
        weight, scores = ctx.saved_tensors
        of_weight = torch.where(scores > ctx.threshold, grad_output, 0) if ctx.needs_input_grad[0] else None
        return of_weight, grad_output * weight, None


def masked(weight: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """A weight where its score is above a threshold, else 0; the gradient passes straight through to the score.

    Piggyback (Mallya et al., ECCV 2018): W * b with b = 1[score > threshold], and the gradient of b is that of the score;
    scores start at 1e-2, the threshold is 5e-3.

    Args:
        weight: Any shape, floating point.
        scores: The same shape.
        threshold: A score equal to it is off.

    Returns:
        The same shape.
    """
    found: Tensor = _Masked.apply(weight, scores, threshold)
    return found


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


def masked_call(module: nn.Module, scores: Mapping[str, Tensor], threshold: float, x: Tensor) -> Tensor:
    """Output of a module some of whose weights are masked by scores, without changing the module; see `masked`.

    Args:
        module: Any module.
        scores: Parameter name -> scores of the parameter's shape; others are used as they are.
        threshold: Score above which a weight is on.
        x: The module's input.

    Returns:
        The module's output; gradients reach the scores (and those weights that require them).

    Raises:
        ValueError: If scores are for no parameter of the module.
    """
    own = dict(module.named_parameters())
    unknown = [name for name in scores if name not in own]
    if unknown:
        raise ValueError(f"scores holds {unknown[0]!r}, which {type(module).__name__} does not have.")
    weights = {name: masked(own[name], of, threshold) for name, of in scores.items()}
    out: Tensor = functional_call(module, weights, (x,))
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
