"""What a report says of an audit in sentences, each no stronger than its figures."""

from lightning_unlearn.report.audit_schema import Audit, AuditLine
from lightning_unlearn.report.labels import number, plain
from lightning_unlearn.report.schema import Report

__all__ = ["audit_limits", "audit_summary", "ranked"]


def ranked(lines: list[AuditLine]) -> list[AuditLine]:
    """Lines of one stratum as they are shown.

    Args:
        lines: Of one stratum.

    Returns:
        Methods, smallest rank AUC first, then zero and ceiling.
    """
    methods = sorted((line for line in lines if line.role == "method"), key=lambda line: line.metrics["rank_auc"])
    return [*methods, *(line for role in ("zero", "ceiling") for line in lines if line.role == role)]


def audit_summary(report: Report) -> list[str]:
    """The audits in a few sentences.

    Args:
        report: With audits.

    Returns:
        Sentences in plain text.
    """
    said = []
    for audit in report.audits:
        where = f"On {plain(audit.request)}: " if len(report.audits) > 1 else ""
        if audit.void:
            said.append(f"{where}void. {plain(' '.join(audit.void))}")
            continue
        said.append(where + _found(audit, len(report.audits)))
    return said


def _found(audit: Audit, forget_sets: int) -> str:
    lines = ranked(audit.of())
    methods = [line for line in lines if line.role == "method"]
    if not methods:
        return "No method was judged."
    told = {line.method for line in audit.lines if line.verdict.startswith("distinguishable")}
    levels = [
        f"{what} {number('rank_auc', line.metrics['rank_auc'])}"
        for role, what in (("zero", "two groups of retrained models read"), ("ceiling", "the original reads"))
        for line in lines
        if line.role == role
    ]
    among = f", where {' and '.join(levels)}" if levels else ""
    first = _first(methods, forget_sets)
    alone = len(methods) == forget_sets == 1
    many = "" if alone else "; not corrected for the number of methods and forget sets"
    level = f" (p at most 0.05, once for all forgotten samples and once for the strata together{many})"
    found = f"{len(told)} of {len(methods)} methods are distinguishable from retraining on some samples"
    return f"{first}{among}. {found}{level}."


def _first(methods: list[AuditLine], forget_sets: int) -> str:
    """The method of the lowest rank AUC; called the smallest only where more than one figure speaks for it."""
    first = plain(methods[0].method)
    value = number("rank_auc", methods[0].metrics["rank_auc"])
    if len(methods) == 1:
        return f"{first} has a per-sample rank AUC of {value}"
    low, high = methods[1].metrics.get("rank_auc/low"), methods[0].metrics.get("rank_auc/high")
    apart = low is not None and high is not None and high < low
    if apart and forget_sets > 1:
        return f"{first} has the smallest per-sample rank AUC, {value}"
    where = ", on one forget set" if forget_sets == 1 else ""
    doubt = "" if apart else f", not told from that of {plain(methods[1].method)}"
    return f"Lowest here{where}: {first}, with a per-sample rank AUC of {value}{doubt}"


def audit_limits(report: Report) -> list[str]:
    """What audits do not show.

    Args:
        report: Of any kind.

    Returns:
        Sentences in plain text; none without audits.
    """
    if not report.audits:
        return []
    said = [
        "An audit speaks of the models' answers to the audited samples under the attacks that were run. Not being told apart "
        "at this power is no proof of forgetting, and no certificate.",
        "It holds for this recipe, this data and models of these seeds: another network or forget set needs its own audit.",
    ]
    if not any(line.stratum.endswith("on retained samples alone") for audit in report.audits for line in audit.lines):
        said.append("Whether fine-tuning on retained data alone brings the memory back was not measured.")
    return said
