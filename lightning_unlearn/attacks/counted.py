"""Scores of many models that take few values, as those of RMIA do: counted once, so that a bootstrap only adds up counts.

A draw of models then costs as much as there are values, and no sort of all their scores; what comes out is the same.
"""

import torch
from torch import Tensor

__all__ = ["auc_of_counts", "counts_of_values", "tpr_of_counts"]

# Distinct scores beyond which sorting is no slower; RMIA has one more than there are population samples.
_MOST_VALUES = 4096


def counts_of_values(members: Tensor, non_members: Tensor) -> tuple[Tensor, Tensor] | None:
    """How often each model gives each score.

    Args:
        members: Scores, (A, N), any floating type.
        non_members: Scores, (B, M), of the same type.

    Returns:
        Counts, (A, V) and (B, V), int64, of the V distinct scores of all, ascending. None where these are too many, or NaN.
    """
    values, place = torch.unique(torch.cat([members.flatten(), non_members.flatten()]), return_inverse=True)
    if len(values) > _MOST_VALUES or bool(values.isnan().any()):
        return None
    places = place.split([members.numel(), non_members.numel()])
    first, second = (
        (at.view(len(group), -1) + len(values) * torch.arange(len(group)).unsqueeze(1))
        .flatten()
        .bincount(minlength=len(group) * len(values))
        .view(len(group), -1)
        for at, group in zip(places, (members, non_members), strict=True)
    )
    return first, second


def auc_of_counts(members: Tensor, non_members: Tensor) -> float:
    """`threshold.auc` of all scores of some models, pooled.

    Args:
        members: Counts, (A, V), int64.
        non_members: Counts, (B, V), int64.

    Returns:
        In 0 ... 1, exact but for the division.
    """
    m, n = members.sum(0), non_members.sum(0)
    below = n.cumsum(0) - n
    return int((m * (2 * below + n)).sum()) / (2 * int(m.sum()) * int(n.sum()))


def tpr_of_counts(members: Tensor, non_members: Tensor, fpr: float) -> float:
    """The rate of `threshold.tpr_at_fpr` of all scores of some models, pooled.

    Args:
        members: Counts, (A, V), int64.
        non_members: Counts, (B, V), int64.
        fpr: The bound, in 0 ... 1.

    Returns:
        In 0 ... 1.
    """
    # From nobody called a member to everybody, score by score.
    true, false = (torch.cat([c.new_zeros(1), c.sum(0).flip(0).cumsum(0)]).double() for c in (members, non_members))
    at = int((false / false[-1] <= fpr).sum()) - 1
    return float(true[at] / true[-1])
