"""Sections on what was forgotten, what it cost, how far it is from the reference, whether it comes back."""

import math
from collections.abc import Sequence

from lightning_unlearn.report import figures
from lightning_unlearn.report.comparison import Comparison, before, compare, heading, original_of, references_of
from lightning_unlearn.report.labels import GOALS, MISSING, count, metric, number, seconds
from lightning_unlearn.report.markup import Html, each, figure, name, paragraph, raw, section, table, text
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.report.wording import against_unseen, brought_back, reading

__all__ = ["back", "cost", "distance", "forgotten", "memory"]

ACCURACIES = ("forget/acc", "retain/acc", "test/acc", "test_forgotten/acc", "unseen/acc", "attack/success")
DISTANCE = (
    "gap/avg", "gap_svc/avg", "forget/acc", "retain/acc", "test/acc", "mia/efficacy", "js/forget",
    "js/test", "kl/forget", "kl/test", "tow", "tow_mia", "zrf",
)  # fmt: skip


def _accuracies(report: Report) -> tuple[str, ...]:
    """A repair is for clean test accuracy, so that comes first."""
    return tuple(dict.fromkeys(["test/acc", *ACCURACIES])) if report.goal == "repair" else ACCURACIES


def forgotten(report: Report) -> Html:
    """What was forgotten: counts, rules and hashes, never the samples.

    Args:
        report: Of any kind.

    Returns:
        A section.
    """
    rows = []
    for request in report.requests:
        share = f"{count(request.count)} of {count(request.of)}"
        if request.of:
            share += f" ({100 * request.count / request.of:.3g} %)"
        digest = Html(f'<code title="{text(request.digest)}">{text(request.digest[:16])}</code>')
        copies = "not searched" if request.copies_left is None else count(request.copies_left)
        extra = [copies, count(request.never_trained)]
        rows.append([name(request.name), name(request.rule), digest, share, *extra])
    head = [
        "Request",
        "Rule",
        "Hash of the keys",
        "Samples",
        "Copies left in retain",
        "Named, never trained on",
    ]
    goal = GOALS.get(report.goal)
    return section(
        "What was forgotten",
        paragraph(f"Goal: {report.goal}, {goal}." if goal else f"Goal: {report.goal}." if report.goal else ""),
        table(head, rows, words=3),
        paragraph(
            "Of the samples only the keys of the most exposed ones are part of this report."
            if any(audit.exposed for audit in report.audits)
            else "The samples themselves are not part of this report.",
            css="quiet",
        ),
    )


def cost(report: Report, rows: Sequence[Row]) -> Html:
    """What it cost: accuracies before and after, seconds, share of retraining.

    Args:
        report: Of any kind.
        rows: The models.

    Returns:
        A section.
    """

    def one(row: Row) -> Html:
        lines = [
            [
                metric(entry.metric, report.goal).label,
                number(entry.metric, entry.original),
                number(entry.metric, entry.value),
                number(entry.metric, entry.value - entry.original, sign=True),
                number(entry.metric, entry.reference),
            ]
            for entry in compare(report, row, _accuracies(report))
        ]
        spent = []
        if "time/unlearn_s" in row.metrics:
            spent.append(f"All stages took {seconds(row.metrics['time/unlearn_s'])} of wall time.")
        if "cost/share" in row.metrics:
            share = number("cost/share", row.metrics["cost/share"])
            spent.append(f"In counted work (images forwarded and backwarded) that is {share} of retraining.")
        head = ["Accuracy in %", before(report), "This model", "Change", "Retrained reference"]
        return raw(table(head, lines, dropped=True), paragraph(*spent))

    return section("What it cost", each([(heading(row), one(row)) for row in rows]))


def distance(report: Report, rows: Sequence[Row]) -> Html:
    """How far from the reference; without one, forgotten against unseen, and what cannot be said.

    Args:
        report: Of any kind.
        rows: The models.

    Returns:
        A section.
    """
    known = any(references_of(report, row) or "gap/avg" in row.metrics for row in rows)
    title = "How far from a retrained model" if known else "Forgotten against unseen samples"

    def one(row: Row) -> Html:
        references = references_of(report, row)
        parts = []
        if references or "gap/avg" in row.metrics:
            entries = compare(report, row, DISTANCE)
            head = ["", "This model", "Retrained reference", "Difference", "Two references differ by",
                    f"{before(report)} to reference", "Difference against that level"]  # fmt: skip
            marked = ["best" if entry.metric == "gap/avg" else "" for entry in entries]
            parts.append(table(head, [_distance(entry, report.goal) for entry in entries], marked=marked))
            how_many = f"{len(references)} retrained reference{'' if len(references) == 1 else 's'}. "
            parts.append(
                paragraph(
                    (how_many if references else "")
                    + "Accuracies and gaps in percent points. The aim is the level of two references, not "
                    "zero.",
                    css="quiet",
                )
            )
        elif report.goal != "repair":
            parts.append(
                paragraph(
                    "The method is exact: this model never saw the samples itself."
                    if row.exact
                    else "No retrained reference was given. How far this model is from one that never saw the "
                    "samples "
                    "cannot be said; what can be tested is whether it treats them as it treats unseen ones."
                )
            )
        if sentence := against_unseen(report, row):
            original = original_of(report, row)
            others = [("this model", row)]
            if original is not None and original is not row and "forget_unseen/auc" in original.metrics:
                others.append((before(report).lower(), original))
            intervals = [(label, *_interval(other)) for label, other in others]
            drawing = figures.intervals(intervals, f"unseen{rows.index(row)}")
            parts.append(paragraph(sentence))
            parts.append(
                figure(
                    drawing,
                    "How well confidence ranks forgotten above unseen samples, class by class, with its "
                    "interval. "
                    "At 0.5 the two are alike.",
                )
            )
        return raw(*parts)

    return section(title, each([(heading(row), one(row)) for row in rows]))


def _distance(entry: Comparison, goal: str) -> list[str]:
    return [
        metric(entry.metric, goal).label,
        number(entry.metric, entry.value),
        number(entry.metric, entry.reference),
        number(entry.metric, entry.difference, sign=True),
        number(entry.metric, entry.level),
        number(entry.metric, entry.original_level),
        reading(entry.difference, entry.level) or MISSING,
    ]


def _interval(row: Row) -> tuple[float, float, float]:
    auc, low, high = (row.metrics.get(f"forget_unseen/auc{end}", math.nan) for end in ("", "/low", "/high"))
    return auc, low, high


def back(report: Report, rows: Sequence[Row]) -> Html:
    """Whether retain-only fine-tuning brings the memory back.

    Args:
        report: Of any kind.
        rows: The models.

    Returns:
        A section; empty where it was not measured.
    """

    def one(row: Row) -> Html:
        names = ("forget/acc", "relearn/acc", "relearn/gap")
        if not any(key in row.metrics for key in names[1:]):
            return Html("")
        lines = [
            [
                metric(entry.metric, report.goal).label,
                number(entry.metric, entry.value),
                number(entry.metric, entry.reference),
                number(entry.metric, entry.level),
                number(entry.metric, entry.original),
            ]
            for entry in compare(report, row, names)
        ]
        head = ["Percent points", "This model", "Retrained reference", "Two references differ by", before(report)]
        return raw(paragraph(brought_back(report, row)), table(head, lines, dropped=True))

    return section("Does the memory come back?", each([(heading(row), one(row)) for row in rows]))


def memory(report: Report, rows: Sequence[Row]) -> Html:
    """Peak memory.

    Args:
        report: Of any kind.
        rows: The models.

    Returns:
        A section; empty where it was not measured.
    """
    key = "memory/peak_mb"
    peaks = [(row.method, row.metrics[key]) for row in rows if math.isfinite(row.metrics.get(key, math.nan))]
    if len(peaks) < 2:
        return section("Peak memory", paragraph(*(f"{number(key, peak)}." for _, peak in peaks)))
    return section("Peak memory", table(["Model", "Peak"], [[name(who), number(key, peak)] for who, peak in peaks]))
