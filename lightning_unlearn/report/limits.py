"""What a report does not show, in sentences."""

import math

from lightning_unlearn.report.audit_wording import audit_limits
from lightning_unlearn.report.comparison import are_exact, references_of, subjects
from lightning_unlearn.report.detect_wording import detect_limits
from lightning_unlearn.report.labels import plain
from lightning_unlearn.report.leaderboard import family
from lightning_unlearn.report.schema import Report, Request
from lightning_unlearn.words import plural

__all__ = ["limits", "too_few"]

# For a claim about a method (evaluation, "Nothing is printed without its zero").
DRAWS, POOLED = 5, 400


def limits(report: Report) -> list[str]:
    """What the report does not show.

    Args:
        report: Of any kind.

    Returns:
        Sentences in plain text.
    """
    if report.detected is not None:
        return detect_limits(report)
    rows = subjects(report)
    said = []
    if are_exact(report):
        said.append(
            "That nothing of the forgotten samples is left follows from how the model was made, not from the figures, which "
            "scatter as those of any retrained model. It rests on the code, and on a record of the training data that is right."
        )
    elif report.tier not in ("audit", "benchmark"):
        said.append(
            "This is a screening of single models: not evidence of forgetting. It can show that samples are still remembered, "
            "never that they are not. An audit would compare ensembles of models."
        )
    empty = {request.name for request in report.requests if request.count == 0}
    repairs = report.goal == "repair"
    rated = [] if repairs else rows
    missing = [row for row in rated if not row.exact and row.request not in empty and not references_of(report, row)]
    if missing:
        said.append(
            "Without a retrained reference it cannot be said how far a model is from one that never saw the samples. Being "
            "alike to unseen samples in confidence is weaker: an attack that looks at each sample may still tell them apart."
        )
    if any(references_of(report, row) and not report.levels.get(row.request) for row in rows):
        said.append(
            "With a single reference, what two references differ by is not known, so no difference can be called large or "
            "small."
        )
    if report.kind == "benchmark":
        said += too_few(report)
    small = [r for r in report.requests if 0 < r.judged < POOLED and not repairs and report.kind not in ("benchmark", "audit")]
    if small:
        counts = ", ".join(_error(request) for request in small[:3])
        said.append(f"Forget accuracy of few samples is uncertain: {counts} (one standard error at 50 %).")
    if any(request.copies_left is None for request in report.requests):
        said.append(
            "Exact copies of forgotten samples among the retained ones were not searched for: too many images to read. "
            "copies_left of lightning_unlearn.data.split reads them with read=True."
        )
    if copies := sum(request.copies_left or 0 for request in report.requests):
        what = "1 exact copy" if copies == 1 else f"{copies} exact copies"
        said.append(f"{what} of forgotten samples stay in the retain set: the model may rightly still know them.")
    said += audit_limits(report)
    silent = report.kind == "audit" or are_exact(report) or bool(empty) or repairs
    if not silent and not any("relearn/gap" in row.metrics or "relearn/acc" in row.metrics for row in rows):
        said.append("Whether fine-tuning on retained data alone brings the memory back was not measured.")
    said.append(
        "Other places may hold the samples: earlier checkpoints, optimiser state, caches, logs, backups, and models that were "
        "distilled or fine-tuned from the original."
    )
    if not are_exact(report):
        said.append("No attack here is the strongest possible; a stronger one can find what these did not.")
    return said


def too_few(report: Report) -> list[str]:
    """Which requests of a benchmark have too few forget sets or samples to call one method better than another.

    Args:
        report: Of a benchmark.

    Returns:
        A sentence for each; empty where all have enough.
    """
    said = []
    for name in dict.fromkeys(family(row.request) for row in report.rows if row.role == "method"):
        drawn = {row.request for row in report.rows if row.role == "method" and family(row.request) == name}
        pooled = sum(request.judged for request in report.requests if request.name in drawn)
        if len(drawn) < DRAWS or pooled < POOLED:
            said.append(
                f"{plain(name)}: {plural(len(drawn), 'forget set')} with {pooled} samples in all. A claim that one method is "
                f"better needs at least {DRAWS} forget sets and {POOLED} samples."
            )
    return said


def _error(request: Request) -> str:
    error = 50 / math.sqrt(max(request.judged, 1))
    return f"{plural(request.judged, 'sample')} give ±{error:.1f} points"
