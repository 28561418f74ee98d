"""The command `report`: rebuild the report of a run, or join those of several. Imports no torch."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_unlearn.cli.plain_parser import PlainParser
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.command import rebuild
from lightning_unlearn.report.table import show
from lightning_unlearn.requests.ledger import LEDGER, in_words, verify

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
    parser.add_argument("--verify", action="store_true", help="compare the run's ledger with its report, split and checkpoint")
    if wants_help:
        parser.print_help()
        return 0
    given = parser.read(arguments)
    if given.verify:
        return max(_verify(Path(run)) for run in given.runs)
    show(rebuild(given.runs, given.output))
    if given.output is not None:
        print(f"report: {Path(given.output) / 'report.html'}")
    return 0


def _verify(run: Path) -> int:
    entries, problems = verify(run)
    if not entries and not problems:
        raise ConfigError(f"{run} has no {LEDGER}: it is no finished run of unlearn, or one of an older version.")
    for entry in entries:
        amount = in_words(entry.keys, entry.withdrawn)
        print(f"{entry.number}  {entry.time}  {amount}, {entry.rule}, {entry.method}  {entry.hash[:12]}")
    for problem in problems:
        print(f"error: {run}: {problem}", file=sys.stderr)
    if problems:
        return 2
    requests = f"{len(entries)} {'request' if len(entries) == 1 else 'requests'}"
    print(f"{run}: {requests}; ledger, report, split and checkpoint agree. Last hash: {entries[-1].hash}")
    print(
        "Who can write to the folder could have replaced all of them together; that shows only in another last hash than the "
        "one that you kept elsewhere."
    )
    return 0
