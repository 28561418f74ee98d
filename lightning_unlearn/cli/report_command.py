"""The command `report`: rebuild the report of a run, or join those of several. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from lightning_unlearn.cli.plain_parser import PlainParser
from lightning_unlearn.report.command import rebuild
from lightning_unlearn.report.table import show

__all__ = ["report_command"]


def report_command(arguments: Sequence[str], wants_help: bool = False) -> int:
    """Run the command.

    Args:
        arguments: Without the command's name.
        wants_help: Whether only the help is printed.

    Returns:
        The exit code.
    """
    parser = PlainParser("report")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of several, or a report.json")
    parser.add_argument("--output", metavar="DIR", help="where the three files go; needed to keep a merged report")
    if wants_help:
        parser.print_help()
        return 0
    given = parser.parse_args(arguments)
    show(rebuild(given.runs, given.output))
    if given.output is not None:
        print(f"report: {Path(given.output) / 'report.html'}")
    return 0
