"""What a report says of a search for wrong labels, no stronger than its figures."""

import math

from lightning_unlearn.report.detect_schema import Detected
from lightning_unlearn.report.labels import count, plain
from lightning_unlearn.report.schema import Report

__all__ = ["detect_limits", "detect_summary"]


def detect_summary(found: Detected) -> list[str]:
    """The search in a few sentences.

    Args:
        found: What was found.

    Returns:
        Sentences in plain text.
    """
    first = found.scores[0]
    share = first.suspected / found.samples
    said = [
        f"{count(first.suspected)} of {count(found.samples)} samples ({share * 100:.1f} %) are suspected, by "
        f"{plain(first.name)} ({first.threshold})."
    ]
    if found.known_wrong is not None and math.isfinite(first.auroc):
        said.append(
            f"{count(found.known_wrong)} labels are known to be wrong: {plain(first.name)} tells them from right ones with "
            f"AUROC {first.auroc:.3f}; {_percent(first.precision)} of the suspects are wrong, and "
            f"{_percent(first.recall)} of the wrong ones are suspected."
        )
    if math.isfinite(found.suggestion_accuracy):
        said.append(f"The suggested label is the true one for {_percent(found.suggestion_accuracy)} of the wrong labels.")
    return said


def detect_limits(report: Report) -> list[str]:
    """What the search does not show.

    Args:
        report: With `detected`, or without.

    Returns:
        Sentences in plain text; empty without.
    """
    found = report.detected
    if found is None:
        return []
    said = [
        "A suspected label is not a wrong one: rare and hard samples look alike. Look at them before anything is forgotten or "
        "relabelled, and correct the columns `suspected` and `suggested` of scores.csv by hand.",
        "Labels that are wrong in the same way throughout (all of one class, one source) are learnt like right ones and are "
        "hardly found.",
    ]
    if found.known_wrong is None:
        said.append("The truth is not known here, so nothing is said about how many wrong labels were found, or missed.")
    else:
        said.append("The truth took no part in scores and threshold. It judges them here, which a real search cannot.")
    if "mixture" in found.scores[0].threshold:
        said.append(
            "A mixture of two always finds two parts. Where wrong labels are few, or none, the upper part is that of hard "
            "samples: look at the histogram, or give a count."
        )
    if not any(score.name in ("mean_loss", "aum", "early_loss", "out_of_fold", "cleanlab") for score in found.scores):
        said.append(
            "Scores of the trained model alone say little where it knows its samples by heart. A training with -c "
            "trainer/record_margins, or out-of-fold scores, say more."
        )
    return said


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %" if math.isfinite(share) else "none"
