"""A report as the files of a run folder."""

from pathlib import Path

from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.report.html import render
from lightning_unlearn.report.schema import Report

__all__ = ["save_report"]


def save_report(report: Report, folder: str | Path) -> None:
    """Write `report.json`, `report.csv` and `report.html`, each whole or not at all.

    Args:
        report: The report.
        folder: Where; it is made if missing.
    """
    # JSON first: the others can be rebuilt from it.
    write_text_atomic(Path(folder) / "report.json", report.to_json())
    write_text_atomic(Path(folder) / "report.csv", report.to_csv())
    write_text_atomic(Path(folder) / "report.html", render(report))
