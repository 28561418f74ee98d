"""The record of a run: configuration, versions, and what it does not show: sections of the page."""

from lightning_unlearn.report.markup import Html, code, fold, name, paragraph, section, table, text
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.wording import limits

__all__ = ["config", "not_shown", "versions"]


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
