"""Which weights matter: scores ranked over all tensors together, and SynFlow's scores, which need no data."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_unlearn.functional.modes import differentiable_in

__all__ = ["largest", "shares_of_rounds", "synflow"]

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def largest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks that are on at the largest scores of all tensors together.

    Args:
        scores: Tensors of any shapes by name.
        share: Part that is on, in 0 ... 1; the nearest whole number of elements, of equal scores the first.

    Returns:
        Name -> boolean mask of the tensor's shape.

    Raises:
        ValueError: `share` is out of range, there is no score, or one is not a number.
    """
    if not 0 <= share <= 1 or not scores:
        raise ValueError(f"share is {share} of {len(scores)} tensors; needed: 0 to 1, of at least one tensor.")
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    if flat.isnan().any():
        raise ValueError("A score is not a number, so they cannot be ranked; needed: finite weights and gradients.")
    on = _first_largest(flat, round(share * len(flat)))
    parts = on.split([score.numel() for score in scores.values()])  # type: ignore[no-untyped-call]  # untyped in torch
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _first_largest(flat: Tensor, count: int) -> Tensor:
    """Which elements are among the `count` largest; of those equal to the last of them the first, alike on every device."""
    if not count:
        return torch.zeros_like(flat, dtype=torch.bool)
    # The last of them, without a sort. Not by `kthvalue`, which CUDA refuses where algorithms must be deterministic.
    if 2 * count <= len(flat):
        last = flat.topk(count, sorted=False).values.amin()
    else:
        last = flat.topk(len(flat) - count + 1, largest=False, sorted=False).values.amax()
    above, equal = flat > last, flat == last
    return above | (equal & (equal.cumsum(0) <= count - above.sum()))


def shares_of_rounds(sparsity: float, rate: float) -> list[float]:
    """Which part of the weights each round of iterative pruning leaves: (1 - rate)^k, the last one 1 - sparsity exactly.

    Args:
        sparsity: Part that is pruned in the end, above 0 and below 1.
        rate: Part of the weights still there that a round prunes, above 0 and below 1.

    Returns:
        Falling shares, one per round, at least one.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 < sparsity < 1 or not 0 < rate < 1:
        raise ValueError(f"sparsity is {sparsity} and rate {rate}; needed: both between 0 and 1, such as 0.95 and 0.2.")
    # A billionth less: 1 - (1 - rate)^k is met after k rounds, whatever the rounding of logarithms.
    rounds = max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - rate) - 1e-9))
    return [*((1 - rate) ** k for k in range(1, rounds)), 1 - sparsity]


def synflow(
    network: nn.Module, input_shape: Sequence[int], names: Sequence[str], sparsity: float, rounds: int = 100
) -> dict[str, Tensor]:
    """Masks of SynFlow (Tanaka et al. 2020, NeurIPS): pruning that keeps the flow through every layer, without any data.

    R is the sum of the outputs for an input of ones, of the network with |theta| in place of theta and without its
    normalisations. In round k of K the weights with the largest |theta dR/dtheta| stay, a part (1 - sparsity)^(k / K). In
    float64, since R is a product over layers. The network stays as it is.

    Args:
        network: Gives one tensor of one tensor (N, *input_shape).
        input_shape: Shape of one input.
        names: Parameters that may be pruned.
        sparsity: Part of their elements that is pruned, in 0 ... 1, below 1.
        rounds: K; 100 in the paper.

    Returns:
        Name -> boolean mask, True where a weight stays, on the network's device.

    Raises:
        ValueError: `sparsity` or `rounds` is out of range.
    """
    if not 0 <= sparsity < 1 or rounds < 1:
        raise ValueError(f"sparsity is {sparsity} and rounds {rounds}; needed: 0 to below 1, and at least one round.")
    flow = {name: value.detach().double().abs() for name, value in network.named_parameters()}
    buffers = {name: value.double() if value.is_floating_point() else value for name, value in network.named_buffers()}
    chosen = [flow[name].requires_grad_() for name in names]
    ones = torch.ones(1, *input_shape, dtype=torch.float64, device=chosen[0].device)
    masks = {name: torch.ones_like(flow[name], dtype=torch.bool) for name in names}
    with differentiable_in(network, ()), _without_norms(network):
        for k in range(1, rounds + 1):
            out = functional_call(network, {**flow, **buffers}, (ones,))
            grads = torch.autograd.grad(out.sum(), chosen, materialize_grads=True)
            # A pruned weight stays pruned, also where those that are left have a score of 0.
            scores = {
                name: torch.where(masks[name], weight.detach() * grad, -math.inf)
                for name, weight, grad in zip(names, chosen, grads, strict=True)
            }
            masks = largest(scores, (1 - sparsity) ** (k / rounds))
            with torch.no_grad():
                for name, weight in zip(names, chosen, strict=True):
                    weight.mul_(masks[name])
    return masks


@contextmanager
def _without_norms(network: nn.Module) -> Generator[None]:
    """Normalisations give back what they get: they would undo every scale."""
    norms = [module for module in network.modules() if isinstance(module, _NORMS)]
    handles = [module.register_forward_hook(lambda _, args, __: args[0]) for module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
