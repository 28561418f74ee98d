"""How much of what a model knows about a sample comes from having been trained on it."""

import math

import torch
from torch import Tensor

__all__ = ["memorisation"]


def memorisation(right: Tensor, member: Tensor) -> Tensor:
    """Memorisation of every sample, by models that were trained with it and without it.

        mem(i) = P(right on i | trained with i) - P(right on i | trained without i)

    The subset estimator of Feldman & Zhang (NeurIPS 2020, algorithm 1): both probabilities are means over models. With p close
    to 1 inside and m models without the sample, the standard error is about sqrt(p (1 - p) / m): at most 0.25 for 4 models.

    Args:
        right: (K, N), K models, N samples: bool, or 0 ... 1 (a probability in place of right or wrong).
        member: (K, N), bool: whether the model was trained on the sample.

    Returns:
        (N,), float64, -1 ... 1; NaN for samples that all models, or none, were trained on.

    Raises:
        ValueError: The shapes differ, or `member` is not bool.
    """
    if right.dim() != 2 or right.shape != member.shape or member.dtype != torch.bool:
        raise ValueError(
            f"right is {tuple(right.shape)}, member {tuple(member.shape)}, {member.dtype}; needed: both (K, N), member bool."
        )
    values, inside = right.double(), member.double()
    outside = 1 - inside
    with_it = (values * inside).sum(0) / inside.sum(0)
    without = (values * outside).sum(0) / outside.sum(0)
    difference = with_it - without
    # 0 / 0 is NaN already; said in words, since nothing else marks these samples.
    return torch.where(member.all(0) | ~member.any(0), math.nan, difference)
