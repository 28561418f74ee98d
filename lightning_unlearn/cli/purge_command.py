"""The command `purge`: list what still holds forgotten data or was trained on it, and delete it. Imports no torch."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lightning_unlearn.cli.plain_parser import PlainParser
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.purge import Finding, delete, find
from lightning_unlearn.requests.ledger import in_words

__all__ = ["purge_command"]

RECORD = "purge.txt"
# Samples that are named on the screen, of those that are still in the data.
_NAMED = 10
_NOT_FOUND = (
    "Not looked for: exported models, copies, backups and trackers elsewhere, and your own logs. Keys of forgotten samples "
    "stay in split.json, ledger.jsonl, lists of requests and records of what models were trained on, so that the samples stay "
    "forgotten; and in reports of audits and of detect, which name some of them: those found are listed as not deleted."
)


def purge_command(arguments: Sequence[str], wants_help: bool = False) -> int:
    """Run the command.

    Args:
        arguments: Without the command's name.
        wants_help: Whether only the help is printed.

    Returns:
        The exit code.
    """
    parser = PlainParser("purge")
    parser.add_argument("run", metavar="RUN", help="folder of the last run of unlearn; its checkpoint stays")
    parser.add_argument("--yes", action="store_true", help="delete; without it files are only listed")
    parser.add_argument("--runs", metavar="DIR", help="folder of all runs (the `runs` around RUN)")
    parser.add_argument("--bank", metavar="DIR", help="folder of originals and references (`bank` in that)")
    if wants_help:
        parser.print_help()
        return 0
    given = parser.read(arguments)
    found = find(Path(given.run), *(None if folder is None else Path(folder) for folder in (given.runs, given.bank)))
    gone = delete(found) if given.yes else found.deletable
    title = "deleted" if given.yes else "would be deleted (with --yes)"
    lines = [
        f"forgotten by {given.run} and the runs before it: {in_words(found.forgotten - found.withdrawn, found.withdrawn)}",
        f"looked through: {', '.join(str(_seen_from_here(place)) for place in found.searched)}",
        *_table(title, gone),
        *_table("not deleted", found.left),
    ]
    print("\n".join([*lines, *_still_there(found.left), _NOT_FOUND]))
    if given.yes:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_text_atomic(Path(given.run) / RECORD, "\n".join([f"purge of {now}", *lines, _NOT_FOUND]) + "\n")
    return 0


def _still_there(findings: Sequence[Finding]) -> list[str]:
    """Forgotten samples that are still in the user's data; the record of the run does not name them."""
    lines = []
    for finding in [finding for finding in findings if finding.names]:
        more = f" and {len(finding.names) - _NAMED} more (split.json)" if len(finding.names) > _NAMED else ""
        named = ", ".join(map(repr, finding.names[:_NAMED]))
        lines.append(f"still in {_seen_from_here(finding.path)}: {named}{more}")
    return lines


def _table(title: str, findings: Sequence[Finding]) -> list[str]:
    total = sum(finding.size for finding in findings)
    files = f"{len(findings)} {'place' if len(findings) == 1 else 'places'}"
    lines = [f"{title}: {files}, {_bytes(total)}"]
    for finding in findings:
        lines.append(f"  {_bytes(finding.size):>9}  {_seen_from_here(finding.path)}: {finding.why}")
    return lines


def _seen_from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
