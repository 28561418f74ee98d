"""What a run writes down of its request: that it began, its result, and then, once that is safe, the line of the ledger."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lightning_unlearn.chain.run import remove_stage_files
from lightning_unlearn.chain.settings import settings_of
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.saved_split import SPLIT
from lightning_unlearn.exceptions import RunError
from lightning_unlearn.files import hash_of_file, write_text_atomic
from lightning_unlearn.ranks import lock_on_first
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.requests.history import history_of
from lightning_unlearn.requests.ledger import BEGUN, START, UNLEARNED, Entry, append, past_requests
from lightning_unlearn.sisa.store import settle_slices
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["RequestRecord", "settle"]


@dataclass(frozen=True)
class RequestRecord:
    """The record of a request in the folder of its run, which the caller holds.

    Attributes:
        folder: The folder.
        earlier: The lines of the run that it starts from.
        entry: Its own line, as far as it is known.
    """

    folder: Path
    earlier: Sequence[Entry]
    entry: Entry

    @classmethod
    def begin(
        cls, folder: Path, data: UnlearningDataModule, checkpoint: str | None, method: str, stages: Sequence[UnlearningStage]
    ) -> "RequestRecord":
        """Write down what is asked for before anything is computed; a run that goes on keeps the time of its first start.

        Args:
            folder: The folder of the run.
            data: The data, split.
            checkpoint: What the run starts from; None: a model without a file.
            method: Name of the method.
            stages: Its stages.

        Returns:
            The record. A damaged ledger of the run that it starts from is a `RunError`.
        """
        earlier = [] if checkpoint is None else history_of(checkpoint)
        samples, forget = data.part("forget")
        now = _now()
        entry = Entry(
            number=len(earlier) + 1,
            begun=now,
            time="",
            rule="" if data.forget_rule is None else data.forget_rule.describe(),
            keys=sorted(samples.keys[i] for i in forget.tolist()),
            withdrawn=data.parts.withdrawn,
            method=method,
            settings=hashlib.sha256(settings_of(stages).encode()).hexdigest(),
            before=None if checkpoint is None else hash_of_file(Path(checkpoint)),
            after="",
            previous=earlier[-1].hash if earlier else START,
        )
        before = _begun(folder)
        if before is not None and replace(before, begun=now, time="", after="", hash="") == entry:
            entry = replace(entry, begun=before.begun)
        data.saved_split(unseen_trained=any(stage.trains_on_unseen for stage in stages)).save(folder / SPLIT)
        write_text_atomic(folder / BEGUN, entry.line() + "\n")
        return cls(folder, earlier, entry)

    def finish(self, report: Report, save: Callable[[Path, tuple[int, str]], None]) -> None:
        """Keep the result, and write the ledger's line when it is safe.

        Killed at any moment, the run goes on: without `unlearned.ckpt` it is not finished and does this again; with it,
        `settle` writes the line that is ready.

        Args:
            report: The report; it gets the history.
            save: Writes the unlearned checkpoint, with the number of the request and the hash of the line before.
        """
        part = self.folder / f"{UNLEARNED}.part"
        save(part, (self.entry.number, self.entry.previous))
        entry = replace(self.entry, time=_now(), after=hash_of_file(part)).sealed()
        report.history = past_requests([*self.earlier, entry])
        save_report(report, self.folder)
        ready = "".join(e.line() + "\n" for e in (*self.earlier, entry))
        write_text_atomic(self.folder / BEGUN, ready)
        # A folder with this file is a finished run.
        os.replace(part, self.folder / UNLEARNED)
        _complete(self.folder)


def settle(folder: Path, keep_artifacts: bool = False) -> None:
    """Leave a finished run as it should be, also one that was killed after its last checkpoint.

    A `request.json` that was damaged since is a `RunError`.

    Args:
        folder: The folder of a run that holds its unlearned checkpoint.
        keep_artifacts: Whether masks, Fisher and targets stay.
    """
    with lock_on_first(folder, again=True):
        _complete(folder)
        settle_slices(folder)
        if not keep_artifacts:
            remove_stage_files(folder)


def _complete(folder: Path) -> None:
    """Write the ledger's line that is ready; nothing where it is written."""
    path = folder / BEGUN
    if not path.is_file():
        return
    try:
        *earlier, last = [Entry.parse(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged ({error}); needed: the line of the finished request as the run wrote it, for the ledger. "
            f"Restore the file from a backup; or delete {folder} and make the request again."
        ) from error
    if last.hash:
        append(folder, earlier, last)
        path.unlink()


def _begun(folder: Path) -> Entry | None:
    """What an interrupted run wrote down; None where there is nothing that can be used."""
    try:
        return Entry.parse((folder / BEGUN).read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
