"""The sections of a search for wrong labels."""

import base64
import binascii
import math

from lightning_unlearn.report.detect_schema import Detected, ScoreLine
from lightning_unlearn.report.figures_detect import score_histogram
from lightning_unlearn.report.labels import MISSING, count, seconds
from lightning_unlearn.report.markup import Html, figure, grid, name, paragraph, raw, section, table, text

__all__ = ["DETECT_HEAD", "detect_cells", "detected", "has_pictures"]

DETECT_HEAD = ["Score", "AUROC", "Suspected", "Precision", "Recall", "F1", "Time"]
_PNG = b"\x89PNG\r\n\x1a\n"


def detect_cells(score: ScoreLine) -> list[str]:
    """A score's line in a table.

    Args:
        score: The score.

    Returns:
        Cells under `DETECT_HEAD`.
    """
    shares = [f"{value:.3f}" if math.isfinite(value) else MISSING for value in (score.precision, score.recall, score.f1)]
    area = f"{score.auroc:.3f}" if math.isfinite(score.auroc) else MISSING
    return [score.name, area, count(score.suspected), *shares, seconds(score.seconds)]


def has_pictures(found: Detected | None) -> bool:
    """Whether the page shows images.

    Args:
        found: What was found.

    Returns:
        Whether one of the suspects comes with one.
    """
    return found is not None and any(suspect.image for suspect in found.suspects)


def detected(found: Detected | None) -> Html:
    """Everything about a search for wrong labels.

    Args:
        found: What was found; None: there was no search.

    Returns:
        Sections; empty without.
    """
    if found is None:
        return Html("")
    explanation = (
        "High scores are suspect. The first score decides; the others are cut by the same rule, for comparison. The time "
        "of a score includes the passes and trainings that it shares with others; a record was made by the training itself, "
        "and models that lay in the bank cost none here."
    )
    words = [[score.name, score.title, score.threshold] for score in found.scores]
    drawings = [figure(score_histogram(score, f"score{i}"), score.title) for i, score in enumerate(found.scores)]
    pairs = [[name(pair.label), name(pair.suggested), count(pair.count)] for pair in found.pairs]
    return raw(
        section(
            "Scores",
            table(DETECT_HEAD, [detect_cells(score) for score in found.scores], dropped=True, marked=["best"]),
            paragraph(explanation, css="quiet"),
            table(["Score", "What it is", "Suspected are"], words, words=3),
        ),
        section("Histograms", grid(*drawings)),
        section("The most suspicious samples", _suspects(found)),
        section("Which classes", table(["Given", "Rather", "Suspects"], pairs, words=2)),
    )


def _suspects(found: Detected) -> Html:
    rows = [
        [name(suspect.key), name(suspect.label), name(suspect.suggested), f"{suspect.score:.4g}"] for suspect in found.suspects
    ]
    listed = table(["Sample", "Given", "Suggested", "Score"], rows, words=3)
    if not has_pictures(found):
        return listed
    pictures = "".join(
        f'<figure><img src="data:image/png;base64,{_checked(suspect.image)}" alt="">'
        f"<figcaption>{name(suspect.label)} \u2192 {name(suspect.suggested)}<br>{text(suspect.key)}</figcaption></figure>"
        for suspect in found.suspects
        if suspect.image
    )
    return raw(Html(f'<div class="sheet">{pictures}</div>'), listed)


def _checked(image: str) -> str:
    """An image from a report.json, which somebody may have written by hand: base64 of a PNG and nothing else."""
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return image if content.startswith(_PNG) else ""
