"""A detection as a report."""

import base64
import io
import math
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from PIL import Image
from torch import Tensor

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.detection.result import Detection, Scored
from lightning_unlearn.detection.threshold import positive
from lightning_unlearn.evaluation.new_report import machine
from lightning_unlearn.report.detect_schema import Detected, Pair, ScoreLine, Suspect
from lightning_unlearn.report.schema import Report

__all__ = ["report_of"]

BINS = 40
# Suspects that are listed where no pictures are asked for, and pairs of classes.
LISTED = 10
# Share of suspects above which a mixture has more likely cut hard samples off than wrong labels.
MANY = 0.3
# The same for any other rule.
MOST = 0.5


def report_of(found: Detection, data: UnlearningDataModule, pictures: int = 0) -> Report:
    """Write a report.

    Args:
        found: Scores and suspects.
        data: The data that were searched.
        pictures: Of so many of the most suspicious samples the image stands in the report.

    Returns:
        The report.
    """
    first = found.scores[found.decided_by]
    warnings = _too_many(found, first)
    unscored = int(first.values.isnan().sum())
    if unscored:
        warnings.append(f"{unscored} samples have no score {found.decided_by}: the record does not know them.")
    wrong = found.wrong
    return Report(
        "detect",
        f"{data.dataset.name}: suspected labels",
        datetime.now(UTC).isoformat(timespec="seconds"),
        "repair",
        "detect",
        versions={name: version(name) for name in ("torch", "lightning", "scikit-learn")},
        machine=machine(),
        warnings=warnings,
        detected=Detected(
            samples=len(found.keys),
            known_wrong=None if wrong is None else int(wrong.sum()),
            suggestion_accuracy=found.suggestion_accuracy,
            scores=[_line(found, name, scored) for name, scored in found.scores.items()],
            suspects=_suspects(found, data, pictures),
            pairs=_pairs(found),
        ),
    )


def _too_many(found: Detection, first: Scored) -> list[str]:
    share = int(first.suspected.sum()) / len(found.keys)
    if share <= (MANY if "mixture" in first.threshold else MOST):
        return []
    if "mixture" in first.threshold:
        recorded = "" if "mean_loss" in found.scores else ", or train with -c trainer/record_margins, whose scores tell more"
        why = f"{found.decided_by} does not fall into two parts here. Give --count or --quantile{recorded}."
    elif "quantile" in first.threshold:
        why = (
            "the quantile q is too small: it is where the scores are cut, and 1 - q is the share that is suspected. Give a "
            "larger --quantile: 0.9 suspects the highest tenth."
        )
    else:
        why = f"the rule ({first.threshold}) takes too many. Give a smaller --count, or a larger --quantile."
    return [f"{100 * share:.0f} % of the samples are suspected: unless so many labels are wrong, {why}"]


def _line(found: Detection, name: str, scored: Scored) -> ScoreLine:
    known = ~scored.values.isnan()
    edges, place = _binned(scored.values[known], scored.log)
    counts = torch.bincount(place, minlength=BINS)
    wrong = [] if found.wrong is None else torch.bincount(place[found.wrong[known]], minlength=BINS).tolist()
    limit = float(scored.values[scored.suspected].min()) if bool(scored.suspected.any()) else math.nan
    return ScoreLine(
        name=name,
        title=scored.title,
        seconds=scored.seconds,
        threshold=scored.threshold,
        suspected=int(scored.suspected.sum()),
        limit=limit,
        edges=edges.tolist(),
        counts=counts.tolist(),
        wrong=wrong,
        log=scored.log,
        auroc=found.auroc(name),
        **found.decision(name)._asdict(),
    )


def _binned(values: Tensor, log: bool) -> tuple[Tensor, Tensor]:
    """Edges of the bins, (B + 1,), and the bin of each value."""
    if log:
        values = positive(values)
        low = float(values.min())
        high = max(float(values.max()), low * 1.001)
        edges = torch.logspace(math.log10(low), math.log10(high), BINS + 1, dtype=torch.float64)
    else:
        low, high = float(values.min()), float(values.max())
        edges = torch.linspace(low, max(high, low + 1e-9), BINS + 1, dtype=torch.float64)
    return edges, torch.bucketize(values, edges[1:-1], right=True)


def _suspects(found: Detection, data: UnlearningDataModule, pictures: int) -> list[Suspect]:
    values = found.scores[found.decided_by].values
    return [
        Suspect(
            found.keys[i],
            found.classes[int(found.labels[i])],
            found.classes[int(found.suggested[i])],
            float(values[i]),
            _png(data.samples.images[int(found.index[i])]) if rank < pictures else "",
        )
        for rank, i in enumerate(found.most_suspect(max(pictures, LISTED)).tolist())
    ]


def _png(image: Tensor) -> str:
    array = image.permute(1, 2, 0).contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _pairs(found: Detection) -> list[Pair]:
    chosen = found.suspected
    counts = Counter(zip(found.labels[chosen].tolist(), found.suggested[chosen].tolist(), strict=True))
    return [Pair(found.classes[a], found.classes[b], n) for (a, b), n in counts.most_common(LISTED)]
