"""The sections of an audit over many models."""

import math

from lightning_unlearn.report.audit_schema import WHOLE, Audit, AuditLine
from lightning_unlearn.report.audit_wording import ranked
from lightning_unlearn.report.figures_audit import against_null, log_roc
from lightning_unlearn.report.labels import MISSING, metric, number
from lightning_unlearn.report.legend import legend
from lightning_unlearn.report.markup import Html, figure, fold, grid, name, paragraph, raw, section, table, text
from lightning_unlearn.report.schema import Report

__all__ = ["AUDIT_COLUMNS", "audits", "interval", "shown_name"]

AUDIT_COLUMNS = ("rank_auc", "rank_auc/null", "rank_auc/p_holm", "ulira", "ulira/references", "rmia1/auc", "rmia/auc",
                 "rmia/tpr@1fpr", "rmia/tpr@0.1fpr", "klom/median", "klom/median/null", "klom/p95", "klom/p95/null",
                 "klom/retain_p95", "klom/test_p95", "f", "f/null", "f/of_null", "f/final", "forget/acc", "retain/acc",
                 "test/acc", "test_forgotten/acc", "cost/share", "time/unlearn_s")  # fmt: skip
_OF_A_STRATUM = ("rank_auc", "ulira", "ulira/references", "rmia1/auc", "rmia/auc")
_ROLES = {"zero": "held-out references (zero)", "ceiling": "original (ceiling)"}
# By how many of two could not be checked.
_HELD = ("The controls held.", "One control held; the other could not be checked.", "No control could be checked.")
# Methods whose figures are not folded away.
_OPEN = 2


def shown_name(line: AuditLine) -> str:
    """The name of a line's group.

    Args:
        line: A line.

    Returns:
        The method, or what the group stands for.
    """
    return _ROLES.get(line.role, line.method)


def interval(line: AuditLine, key: str) -> str:
    """A value with its interval, where it has one.

    Args:
        line: A line.
        key: The metric.

    Returns:
        For instance "0.720 (0.702 to 0.738)"; empty where there is no value.
    """
    if key not in line.metrics:
        return ""
    value = number(key, line.metrics[key])
    low, high = (line.metrics.get(f"{key}/{end}", math.nan) for end in ("low", "high"))
    if not math.isfinite(low + high):
        return value
    return f"{value} ({number(key, low, unit=False)} to {number(key, high, unit=False)})"


def audits(report: Report) -> Html:
    """Everything about the audits of a report.

    Args:
        report: Of any kind.

    Returns:
        Sections; empty without audits.
    """
    parts = []
    for position, audit in enumerate(report.audits):
        where = f": {audit.request}" if len(report.audits) > 1 else ""
        parts += [
            section(f"Controls{where}", _controls(audit)),
            section(f"What an attacker sees of the forgotten samples{where}", _whole(audit)),
            section(f"Strata{where}", _strata(audit)),
            section(f"Figures{where}", _figures(audit, f"audit{position}")),
            section(f"The most exposed samples{where}", _exposed(audit)),
        ]
    return raw(*parts)


def _controls(audit: Audit) -> Html:
    items = "".join(f"<li>{text(item)}</li>" for item in audit.controls)
    if audit.void:
        verdict = paragraph("This audit is void. Its figures say nothing about any method.")
    else:
        verdict = paragraph(_HELD[min(audit.unchecked, 2)])
    return raw(verdict, Html(f'<ul class="limits">{items}</ul>'))


def _whole(audit: Audit) -> Html:
    lines = ranked(audit.of())
    columns = [key for key in AUDIT_COLUMNS if any(key in line.metrics for line in lines)]
    rows = [[name(shown_name(line)), str(line.models), *(interval(line, key) for key in columns)] for line in lines]
    marked = ["level" if line.role != "method" else "" for line in lines]
    verdicts = [[name(line.method), line.verdict] for line in lines if line.role == "method"]
    notes = [paragraph(note, css="quiet") for note in audit.notes]
    return raw(
        table(["Verdict", ""], verdicts, words=2),
        table(["Group", "Models", *(metric(key).short for key in columns)], rows, marked=marked),
        paragraph(
            "Every group of models is compared with the references, sample by sample, and the mean over samples is shown; in "
            "brackets 95 % intervals over models; permuted: the same after dealing the models' labels out at random. A method "
            "is as good as its figures are near those of the zero, not of 0.5; of a zero of fewer models, near those permuted. "
            "The p-value here is of all forgotten samples: a test of its own, not corrected for the strata.",
            css="quiet",
        ),
        *notes,
        legend(columns),
    )


def _strata(audit: Audit) -> Html:
    """Rank AUC on every stratum, a star where it tells apart."""
    strata = list(dict.fromkeys(line.stratum for line in audit.lines))
    by = {(line.method, line.stratum): line for line in audit.lines}
    rows, details = [], []
    for first in ranked(audit.of(WHOLE)):
        cells = []
        for stratum in strata:
            line = by.get((first.method, stratum))
            star = "*" if line is not None and line.verdict.startswith("distinguishable") else ""
            cells.append(MISSING if line is None else number("rank_auc", line.metrics["rank_auc"]) + star)
            if line is not None and line.role == "method":
                extra = [interval(line, key) or MISSING for key in _OF_A_STRATUM]
                details.append([name(line.method), line.stratum, line.verdict, str(line.samples), *extra])
        rows.append([name(shown_name(first)), *cells])
    sizes = [next(line.samples for line in audit.lines if line.stratum == stratum) for stratum in strata]
    head = ["Rank AUC", *(f"{stratum} ({size})" for stratum, size in zip(strata, sizes, strict=True))]
    head_of_details = ["Method", "Stratum", "Verdict", "Samples", "Rank AUC", "U-LiRA", "U-LiRA, refs", "RMIA 1", "RMIA"]
    return raw(
        table(head, rows),
        paragraph(
            "In brackets the number of samples. * distinguishable from retraining with p at most 0.05, of all forgotten "
            "samples as it is, of the others after Holm over the strata of the method. Hardness and memorisation are measured "
            "on held-out references and originals. U-LiRA and RMIA are not applicable to retained samples: both need models "
            "that never saw them.",
            css="quiet",
        ),
        fold("Every method on every stratum", table(head_of_details, details, words=3)) if details else Html(""),
    )


def _figures(audit: Audit, prefix: str) -> Html:
    methods = [line.method for line in ranked(audit.of()) if line.role == "method"]
    zero, ceiling = (next((line.method for line in audit.of() if line.role == role), "") for role in ("zero", "ceiling"))
    pieces = []
    for position, method in enumerate(methods):
        drawings = []
        if method in audit.rank_aucs:
            drawing = against_null(
                audit.rank_aucs[method], f"{prefix}auc{position}", "two-sided rank AUC of a sample (0.5: alike)",
                "Histogram of the per-sample rank AUC against that of held-out references",
            )  # fmt: skip
            drawings.append(figure(drawing, "Forgotten samples, by how well their margin tells unlearned from references."))
        if method in audit.rocs:
            groups = {"unlearned": method, "held-out references": zero, "original": ceiling}
            curves = {label: audit.rocs[group] for label, group in groups.items() if group in audit.rocs}
            drawings.append(figure(log_roc(curves, f"{prefix}roc{position}"), "RMIA, all models and forgotten samples pooled."))
        if method in audit.kloms:
            drawing = against_null(
                audit.kloms[method], f"{prefix}klom{position}", "KLoM of a sample (nats)",
                "Histogram of the per-sample KLoM against that of held-out references",
            )  # fmt: skip
            drawings.append(figure(drawing, "Distance between the margins of unlearned and of reference models, by sample."))
        pieces.append((method, grid(*drawings)))
    opened = [raw(Html(f"<h3>{name(method)}</h3>"), drawn) for method, drawn in pieces[:_OPEN]]
    return raw(*opened, *(fold(method, drawn) for method, drawn in pieces[_OPEN:]))


def _exposed(audit: Audit) -> Html:
    parts = []
    for line in ranked(audit.of()):
        if line.method not in audit.exposed:
            continue
        rows = [
            [name(item.key), name(item.label), number("rank_auc", item.rank_auc), f"{item.margin:.2f}",
             f"{item.reference_margin:.2f}"]
            for item in audit.exposed[line.method]
        ]  # fmt: skip
        head = ["Key", "Class", "Rank AUC", "Mean margin, unlearned", "Mean margin, references"]
        parts.append(fold(line.method, table(head, rows, words=2)))
    note = "This part names samples that were to be forgotten: share it with those alone who may know them."
    return raw(paragraph(note, css="quiet"), *parts) if parts else Html("")
