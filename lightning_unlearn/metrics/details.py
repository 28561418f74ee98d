"""What figures and tables of a report are drawn from: plain lists and numbers that go into JSON."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_unlearn.attacks.threshold import roc
from lightning_unlearn.metrics.accuracy import accuracy_by_class
from lightning_unlearn.outputs import Outputs

__all__ = ["Json", "class_rows", "margin_histograms", "roc_points"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def margin_histograms(margins: Mapping[str, Tensor], bins: int = 40) -> dict[str, Json]:
    """Histograms of several sets of margins over the same bins.

    The bins span the middle 99 % of every set; the first and the last also hold what lies beyond, so that one
    sample at a margin of 1,000 does not flatten the picture.

    Args:
        margins: Margins by name, each (N,), float64, N >= 1.
        bins: Number of bins.

    Returns:
        `edges`: bins + 1 numbers; `counts`: by name, bins whole numbers that sum to N.
    """
    # Without interpolation: among few samples it would reach out to an outlier.
    sets = [values.double() for values in margins.values()]
    low = min(float(values.quantile(0.005, interpolation="higher")) for values in sets)
    high = max(float(values.quantile(0.995, interpolation="lower")) for values in sets)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = min(low, high) - 0.5, max(low, high) + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    counts: dict[str, Json] = {}
    for name, values in margins.items():
        at = torch.bucketize(values.double(), edges, right=True) - 1
        counts[name] = at.clamp(0, bins - 1).bincount(minlength=bins).tolist()
    return {"edges": edges.tolist(), "counts": counts}


def roc_points(members: Tensor, non_members: Tensor, limit: int = 200, weights: Tensor | None = None) -> dict[str, Json]:
    """Points of a ROC curve, at most `limit`, for axes that may be logarithmic.

    Half of the points are spaced evenly and half geometrically, so that the low false-positive rates, which
    are what matters to the attacked, keep their detail.

    Args:
        members: Scores, (N,).
        non_members: Scores, (M,).
        limit: The most points to give, at least 2.
        weights: How much each non-member counts, (M,); None: all alike.

    Returns:
        `fpr` and `tpr`, ascending, from (0, 0) to (1, 1), each a point of the full curve.
    """
    curve = roc(members, non_members, weights)
    last = len(curve.fpr) - 1
    if last < limit:
        chosen = torch.arange(last + 1)
    else:
        even = torch.linspace(0, last, limit - limit // 2, dtype=torch.float64)
        steep = torch.logspace(0, 1, limit // 2, base=float(last), dtype=torch.float64)
        # base ** 0 is 1: the geometric half runs from the first point after (0, 0) to the last.
        chosen = torch.cat([even, steep]).round().long().clamp(0, last).bincount().nonzero().squeeze(1)
    return {"fpr": curve.fpr[chosen].tolist(), "tpr": curve.tpr[chosen].tolist()}


def class_rows(outputs: Outputs) -> list[Json]:
    """Samples and accuracy of each class on forget, retain and test.

    Args:
        outputs: Of the unlearned model.

    Returns:
        K rows: `class`, and for each part `<part>_n` and `<part>_acc` in points, None where there is no
        sample.
    """
    rows: list[dict[str, Json]] = [{"class": c} for c in range(outputs.forget.num_classes)]
    for name in ("forget", "retain", "test"):
        counts, right = (column.tolist() for column in accuracy_by_class(outputs.parts()[name]))
        for row, n, correct in zip(rows, counts, right, strict=True):
            row[f"{name}_n"] = n
            row[f"{name}_acc"] = 100 * correct / n if n else None
    return [*rows]
