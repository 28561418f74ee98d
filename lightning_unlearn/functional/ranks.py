"""Ranks: of the values of each sample among models, and of one group of values among another."""

import torch
from torch import Tensor

__all__ = ["mid_ranks", "share_won", "tie_starts"]


def mid_ranks(values: Tensor) -> Tensor:
    """Ranks 1 ... M along the first dimension; equal values share the mean of their ranks.

    Args:
        values: (M, N), any floating type, not NaN.

    Returns:
        (M, N), float64; every column sums to M (M + 1) / 2.
    """
    # searchsorted works along the last dimension.
    rows = values.T.contiguous()
    ordered = rows.sort(-1).values
    below = torch.searchsorted(ordered, rows, right=False)
    not_above = torch.searchsorted(ordered, rows, right=True)
    return ((below + not_above + 1).double() / 2).T.contiguous()


def share_won(first: Tensor, second: Tensor) -> float:
    """Share of pairs in which the value of the first group is the larger one, ties counted as 1/2: the area under a ROC curve.

    Args:
        first: (N,), any floating type, not NaN; N >= 1.
        second: (M,), of the same type; M >= 1.

    Returns:
        In 0 ... 1, exact but for the division.
    """
    ranked = second.sort().values
    below = torch.searchsorted(ranked, first, right=False)
    not_above = torch.searchsorted(ranked, first, right=True)
    return int((below + not_above).sum()) / (2 * len(first) * len(second))


def tie_starts(ordered: Tensor) -> Tensor:
    """Where the run of equal values begins that each place of a sorted row belongs to.

    A threshold at the value of place k has exactly this many values below it: equal values stay on one side.

    Args:
        ordered: (N, M), ascending in every row.

    Returns:
        (N, M + 1), int64; the last column is M, the threshold above all values.
    """
    starts = torch.searchsorted(ordered, ordered, right=False)
    return torch.cat([starts, starts.new_full((len(ordered), 1), ordered.shape[1])], 1)
