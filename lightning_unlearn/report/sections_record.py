"""The record of a run: configuration, versions, and what it does not show: sections of the page."""

from lightning_unlearn.report.labels import MISSING
from lightning_unlearn.report.ledger_schema import PastRequest
from lightning_unlearn.report.limits import limits
from lightning_unlearn.report.markup import Html, code, fold, name, paragraph, section, table, text
from lightning_unlearn.report.schema import Report

__all__ = ["config", "history", "not_shown", "versions"]


def config(report: Report) -> Html:
    """The exact configuration.

    Args:
        report: Of any kind.

    Returns:
        A section; empty without one.
    """
    if not report.config.strip():
        return Html("")
    block = code(report.config)
    long = report.config.count("\n") > 40
    return section("Configuration", fold("Show the whole configuration", block) if long else block)


def history(report: Report) -> Html:
    """The requests that the model went through.

    Args:
        report: Of any kind.

    Returns:
        A section; empty without a ledger.
    """
    lines = [
        [str(past.number), text(past.time), name(past.rule), text(past.amount), name(past.method), *map(_digest, _hashes(past))]
        for past in report.history
    ]
    if not lines:
        return Html("")
    head = ["", "Finished (UTC)", "Rule", "Forgotten", "Method", "Before", "After", "Line"]
    note = "The ledger beside this page names the samples. Keep the last hash elsewhere, to compare with report --verify."
    return section("Requests, one after another", table(head, lines, words=3), paragraph(note, css="quiet"))


def _hashes(past: PastRequest) -> tuple[str, str, str]:
    return past.before, past.after, past.hash


def _digest(digest: str) -> Html:
    return Html(f'<code title="{text(digest)}">{text(digest[:12] or MISSING)}</code>')


def versions(report: Report) -> Html:
    """Versions and machine.

    Args:
        report: Of any kind.

    Returns:
        A section; empty without them.
    """
    lines = [[name(package), name(version)] for package, version in report.versions.items()]
    return section("Versions", paragraph(report.machine), table(["Package", "Version"], lines, words=2))


def not_shown(report: Report) -> Html:
    """What the report does not show.

    Args:
        report: Of any kind.

    Returns:
        A section.
    """
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in limits(report))
    return section("What this does not show", Html(f'<ul class="limits">{items}</ul>'))
