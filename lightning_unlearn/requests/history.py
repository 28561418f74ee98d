"""What a checkpoint was through: its place in a ledger, and the runs that go on from it."""

import os
from dataclasses import dataclass
from pathlib import Path

from lightning_unlearn.cautions import fallen_since
from lightning_unlearn.data.saved_split import SPLIT
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.report.schema import Report
from lightning_unlearn.requests.ledger import BEGUN, LEDGER, Entry, entries_in, read_ledger
from lightning_unlearn.weights.checkpoint import read_request

__all__ = ["Made", "add_history", "check_newest", "history_of", "made_by", "newer_run"]


@dataclass(frozen=True)
class Made:
    """What is known of how a model was made.

    Attributes:
        method: Name of the method; else of the folder.
        seed: Seed of its run.
        exact: Whether it is exact by construction.
        cautions: What it says against its own figures.
    """

    method: str
    seed: int = 0
    exact: bool = False
    cautions: tuple[str, ...] = ()


def made_by(checkpoint: str | Path | None) -> Made:
    """What the run that made a checkpoint says of it, by the report beside it.

    Args:
        checkpoint: The file; None: the model came without one.

    Returns:
        The names of its folder and, where it has one of its own, of the file alone where there is no report, or it is of
        another checkpoint.
    """
    if checkpoint is None:
        return Made("model")
    path = Path(checkpoint)
    # Of training states the folder of the run, and of runs that are numbered the name, too.
    folders = [part for part in path.resolve().parent.parts[1:] if part != "checkpoints"][-2:]
    unknown = Made("/".join([*folders, *([] if path.stem in ("last", "unlearned") and folders else [path.stem])]))
    try:
        report = Report.load(path.parent)
    except ConfigError:
        return unknown
    row = next((row for row in report.rows if row.role == "method"), None)
    if row is None or not report.history or report.history[-1].after != hash_of_file(path):
        return unknown
    return Made(row.method, row.seed, row.exact, tuple(row.cautions))


def history_of(checkpoint: str | Path) -> list[Entry]:
    """The requests that a checkpoint went through, by the ledger beside it.

    Args:
        checkpoint: The file.

    Returns:
        The requests, the first one first; empty for a model that was only trained. A damaged ledger is a `RunError`.

    Raises:
        CheckpointError: It is the result of a request, and split and ledger beside it are missing, or another one's.
    """
    path = Path(checkpoint)
    noted = read_request(path)
    wrong = None if noted is None else next((f"no {n}" for n in (SPLIT, LEDGER) if not (path.parent / n).is_file()), None)
    entries = read_ledger(path.parent) if wrong is None else []
    if noted is not None and wrong is None:
        last = entries[-1]
        if (last.number, last.previous) != noted or last.after != hash_of_file(path):
            wrong = f"the {LEDGER} of another checkpoint"
    if noted is not None and wrong is not None:
        raise CheckpointError(
            f"{checkpoint} is the result of request {noted[0]} on its model, and beside it lies {wrong}: what was forgotten "
            "would come back. Give the checkpoint in the folder of the run that made it, or copy that folder whole."
        )
    return entries


def add_history(report: Report, checkpoint: str | Path | None) -> None:
    """Say in a report what the model that a request started from had gone through, and what all requests together cost.

    Args:
        report: A report on models after a request; it is changed.
        checkpoint: The checkpoint that the request started from; None, and one that was only trained, change nothing.
    """
    folder = None if checkpoint is None else Path(checkpoint).parent
    if folder is None or not (entries := entries_in(folder / LEDGER)):
        return
    report.earlier, report.first = len(entries), _first_original(folder, _tested(report))
    for row in report.rows:
        if row.role == "method":
            text, fell = fallen_since(report.first, row.metrics, report.earlier + 1)
            # What falls little by little is seen in no single request.
            if fell:
                report.warnings.append(text)
            elif text:
                row.notes.append(text)


def _first_original(folder: Path, tested: frozenset[str]) -> dict[str, float]:
    """Accuracies of the model before the first request, by the report of a later run; empty where it does not tell."""
    try:
        earlier = Report.load(folder)
    except ConfigError:
        return {}
    first = earlier.first
    if not earlier.earlier:
        original = next((row for row in earlier.rows if row.role == "original"), None)
        first = {} if original is None or len(earlier.history) != 1 else original.metrics
    # Without the samples of an easy class test accuracy falls, whatever the model.
    before = _tested(earlier)
    names = ("retain/acc",) if tested and before and tested != before else ("retain/acc", "test/acc")
    return {name: value for name, value in first.items() if name in names}


def _tested(report: Report) -> frozenset[str]:
    """Classes that its test accuracy counts: not those of which all samples are forgotten; empty where it does not tell."""
    classes = [entry for row in report.rows[-1:] for entry in row.details.get("per_class", [])]
    whole = (entry["class"] for entry in classes if entry["forget"] is not None and entry["retain"] is None)
    return frozenset(entry["class"] for entry in classes if entry["test"] is not None) - frozenset(whole)


def newer_run(folder: Path, digest: str, own: Path | None = None) -> Path | None:
    """The run that goes on from the checkpoint of another one, in its folder of runs.

    Args:
        folder: The folder of the earlier run.
        digest: SHA-256 of the checkpoint.
        own: A folder that does not count.

    Returns:
        The folder of the run with the longest ledger; None where there is none.
    """
    skipped = {path.resolve() for path in (folder, own) if path is not None}
    # Numbered runs of another name lie beside the folder of this name.
    whole = folder.resolve()
    around = whole.parent.parent if whole.name.isdecimal() else whole.parent
    found: dict[Path, int] = {}
    for file in [path for place in ("*", "*/*") for name in (LEDGER, BEGUN) for path in around.glob(f"{place}/{name}")]:
        entries = entries_in(file)
        if file.parent.resolve() not in skipped and any(entry.before == digest for entry in entries):
            found[file.parent] = max(len(entries), found.get(file.parent, 0))
    newest = max(found, key=lambda run: (found[run], run.name), default=None)
    return newest if newest is None or folder.is_absolute() else Path(os.path.relpath(newest))


def check_newest(checkpoint: str | Path, own: Path | None = None) -> None:
    """Refuse to start from a result that a newer run has gone on from: what that one forgot would come back.

    Args:
        checkpoint: The checkpoint of a run of unlearn.
        own: Folder of the run that is to start from it.

    Raises:
        ConfigError: There is such a run beside it.
    """
    path = Path(checkpoint)
    newer = newer_run(path.parent, hash_of_file(path), own)
    if newer is None:
        return
    begun = "" if (newer / LEDGER).is_file() else f" It is not finished: unlearn --resume {newer} first."
    raise ConfigError(
        f"{newer} goes on from {checkpoint}, and what it was asked to forget would be retained again.{begun} Start from "
        f"{newer}; or give --from_older true, for a second result beside it."
    )
