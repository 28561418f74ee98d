"""The report on the terminal."""

from rich.console import Console
from rich.table import Table

from lightning_unlearn.report.schema import Report

__all__ = ["show"]

_SHOWN = (
    *("gap/avg", "forget/acc", "retain/acc", "test/acc", "unseen/acc"),
    *("mia/auc", "relearn/gap", "cost/share", "time/unlearn_s"),
)


def show(report: Report) -> None:
    """Print the rows of a report.

    Args:
        report: Of any kind.
    """
    console = Console(highlight=False)
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("model")
    shown = [name for name in _SHOWN if any(name in row.metrics for row in report.rows)]
    for name in shown:
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(row.method, *(f"{row.metrics[name]:.4g}" if name in row.metrics else "" for name in shown))
    console.print(report.title, markup=False)
    console.print(table)
    for warning in report.warnings:
        console.print(f"note: {warning}", markup=False)
