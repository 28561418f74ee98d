"""Margins and log-probabilities of several models on the same samples, in float64.

From logits and never from probabilities: a confidence rounds to 1 from a margin of 17 on in float32, and makes ties of
the surest samples, which are what an attack looks at.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.metrics.pairing import check_same_samples
from lightning_unlearn.outputs import PartOutputs

__all__ = ["label_log_probabilities", "margins", "stacked_margins"]


def margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Margins log p_y - log sum of the others.

    Args:
        logits: Of one model, (N, K), or of several, (M, N, K), any floating type, K >= 2.
        targets: Labels, (N,), int64.

    Returns:
        (N,) or (M, N), float64; finite for finite logits.
    """
    rows, labels = _rows(logits, targets)
    return margin(rows, labels).reshape(logits.shape[:-1])


def label_log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of the label, as RMIA takes them.

    Args:
        logits: Of one model, (N, K), or of several, (M, N, K), any floating type.
        targets: Labels, (N,), int64.

    Returns:
        (N,) or (M, N), float64, <= 0; finite for finite logits.
    """
    rows, labels = _rows(logits, targets)
    picked = rows.double().log_softmax(1).gather(1, labels.unsqueeze(1))
    # Rounding must not make a sure prediction surer than certain.
    return picked.reshape(logits.shape[:-1]).clamp_max(0.0)


def stacked_margins(parts: Sequence[PartOutputs]) -> Tensor:
    """Margins of several models from their outputs on one part of the data.

    Args:
        parts: One per model, all on the same samples; at least one.

    Returns:
        (M, N), float64.

    Raises:
        DataError: There is no model, or the samples differ.
    """
    if not parts:
        raise DataError("Outputs of no model; needed: at least one.")
    for other in parts[1:]:
        check_same_samples(parts[0], other)
    return torch.stack([part.margins for part in parts])


def _rows(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if logits.ndim not in (2, 3) or logits.shape[-2:-1] != targets.shape:
        raise DataError(
            f"Logits of shape {tuple(logits.shape)} with labels of shape {tuple(targets.shape)}; "
            "needed: (N, K) or (M, N, K) with (N,)."
        )
    models = logits.shape[0] if logits.ndim == 3 else 1
    return logits.reshape(-1, logits.shape[-1]), targets.repeat(models)
