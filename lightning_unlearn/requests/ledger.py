"""The history of the requests that a model went through: append-only, each line chained to the one before by its hash.

What `verify` finds and what it cannot: an edited, deleted, inserted or moved line breaks the chain where it stands. Lines cut
off the end leave a chain that is whole; they are found because `report.json` names the hash of every line, and the last line
names the hash of `unlearned.ckpt`. Who can write to the folder can replace ledger, report and checkpoint together; against that
helps only the hash of the last line, kept elsewhere. Imports no torch.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from lightning_unlearn.data.saved_split import SPLIT, SavedSplit, names_class
from lightning_unlearn.exceptions import CheckpointError, ConfigError, RunError
from lightning_unlearn.files import hash_of_file, write_text_atomic
from lightning_unlearn.report.ledger_schema import PastRequest, amount
from lightning_unlearn.report.schema import Report
from lightning_unlearn.words import plural

__all__ = [
    "BEGUN",
    "LEDGER",
    "START",
    "UNLEARNED",
    "Entry",
    "append",
    "entries_in",
    "in_words",
    "past_requests",
    "read_ledger",
    "verify",
]

LEDGER = "ledger.jsonl"
REPORT = "report.json"
# The line of a request that is not finished.
BEGUN = "request.json"
UNLEARNED = "unlearned.ckpt"
# What the first line continues.
START = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One request: a line of the ledger.

    Attributes:
        number: From 1.
        begun: When it began, UTC, ISO 8601.
        time: When its result was safe, UTC, ISO 8601; empty before.
        rule: The forget rule in words, which name no sample.
        keys: Keys of the forgotten samples, sorted.
        withdrawn: Keys of samples that it lists although the model was never trained on them, sorted: in no part any more.
        method: Name of the method.
        settings: SHA-256 of the description of its stages.
        before: SHA-256 of the checkpoint that it started from; None where the model came without a file.
        after: SHA-256 of the unlearned checkpoint; empty before it is there.
        previous: Hash of the line before; zeros on the first one.
        hash: SHA-256 of all of the above.
    """

    number: int
    begun: str
    time: str
    rule: str
    keys: list[str]
    # Left out of the line where it is empty, so that lines of earlier versions keep their hash.
    withdrawn: list[str] = field(default_factory=list, kw_only=True)
    method: str
    settings: str
    before: str | None
    after: str
    previous: str
    hash: str = ""

    def sealed(self) -> "Entry":
        """The same with its hash.

        Returns:
            An entry.
        """
        content = {name: value for name, value in self._content().items() if name != "hash"}
        return replace(self, hash=hashlib.sha256(_canonical(content).encode()).hexdigest())

    def line(self) -> str:
        """The one way in which the entry is written.

        Returns:
            A line without its end.
        """
        return _canonical(self._content())

    def _content(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value or name != "withdrawn"}

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Read a line.

        Args:
            text: What `line` wrote.

        Returns:
            The entry.

        Raises:
            ValueError: It is none.
        """
        content = json.loads(text)
        lists = ("keys", "withdrawn")
        if not isinstance(content, dict) or list(content) != [
            f.name for f in fields(cls) if f.name != "withdrawn" or "withdrawn" in content
        ]:
            raise ValueError("it has not the fields of an entry")
        for name, value in content.items():
            kinds: dict[str, tuple[type, ...]] = {
                "number": (int,),
                "before": (str, type(None)),
                **dict.fromkeys(lists, (list,)),
            }
            if not isinstance(value, kinds.get(name, (str,))) or isinstance(value, bool):
                raise ValueError(f"{name!r} is a {type(value).__name__}")
        if not all(isinstance(key, str) for name in lists for key in content.get(name, [])):
            raise ValueError("'keys' or 'withdrawn' holds other than texts")
        return cls(**content)


def append(folder: Path, earlier: Sequence[Entry], entry: Entry) -> None:
    """Write the ledger of a run: the lines of the run that it started from, and one more. The caller holds the folder.

    Args:
        folder: The run's folder.
        earlier: The lines before.
        entry: The new line, sealed.
    """
    write_text_atomic(folder / LEDGER, "".join(e.line() + "\n" for e in (*earlier, entry)))


def entries_in(path: Path) -> list[Entry]:
    """The entries of a ledger or of a request that was begun, as far as they can be read, without a look at anything else.

    Args:
        path: The file.

    Returns:
        The entries; empty where there is no such file.
    """
    try:
        return _chain(path.read_text(encoding="utf-8"))[0]
    except (OSError, UnicodeDecodeError):
        return []


def read_ledger(folder: Path) -> list[Entry]:
    """The history of a run whose ledger, report, split and checkpoint agree.

    Args:
        folder: The folder of a finished run of unlearn.

    Returns:
        Its requests, the first one first; empty where the folder has neither ledger nor a report of one.

    Raises:
        RunError: They do not agree.
    """
    entries, problems = verify(folder)
    if problems:
        raise RunError(
            f"The ledger of {folder} is not whole: {problems[0]} Restore the folder from a backup; `lightning-unlearn report "
            f"--verify {folder}` names all that differs."
        )
    return entries


def verify(folder: Path) -> tuple[list[Entry], list[str]]:
    """Compare the ledger of a run with itself, its report, its split and its checkpoint.

    Args:
        folder: The folder of a run of unlearn.

    Returns:
        The entries that could be read, and a sentence about everything that is wrong.
    """
    path = folder / LEDGER
    known, problems = _known(folder)
    if (folder / BEGUN).is_file():
        problems.append(f"A request was begun and not finished. Go on with: lightning-unlearn unlearn --resume {folder}")
    if not path.is_file():
        if known:
            problems.append(f"{LEDGER} is missing, and the report knows {plural(len(known), 'request')}.")
        elif not problems and _forgets(folder):
            problems.append(f"{LEDGER} is missing, and {SPLIT} knows of forgotten samples.")
        return [], problems
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [], [*problems, f"{LEDGER} cannot be read ({error})."]
    entries, broken = _chain(text)
    problems += broken
    if known is not None:
        problems += _against_report(entries, known)
    elif not (folder / REPORT).is_file():
        problems.append(f"{REPORT} is missing, which names the hash of every line: an end that was cut off would not show.")
    if not broken:
        problems += _against_files(folder, entries)
    return entries, problems


def past_requests(entries: Sequence[Entry]) -> list[PastRequest]:
    """The history for a report, which names no sample.

    Args:
        entries: The requests.

    Returns:
        One line each.
    """
    return [
        PastRequest(
            *(e.number, e.time, e.rule, len(e.keys), e.method, e.settings, e.before or "", e.after, e.hash, _classes(e.keys)),
            withdrawn=len(e.withdrawn),
        )
        for e in entries
    ]


def in_words(keys: Collection[str], withdrawn: Collection[str] = ()) -> str:
    """Say how much was forgotten.

    Args:
        keys: Keys of samples, and of classes where no data were read.
        withdrawn: Keys of samples that were withdrawn.

    Returns:
        For instance "5 samples", "1 class" or "4 samples and 2 withdrawn, never trained on".
    """
    return amount(len(keys), _classes(keys), len(withdrawn))


def _classes(keys: Iterable[str]) -> int:
    return sum(names_class(key) for key in keys)


def _canonical(content: dict[str, object]) -> str:
    return json.dumps(content, separators=(",", ":"))


def _chain(text: str) -> tuple[list[Entry], list[str]]:
    """The entries of a ledger, and what is wrong with each line by itself and with its place."""
    problems = []
    entries: list[Entry] = []
    lines = text.split("\n")
    if lines.pop():
        problems.append(f"Line {len(lines) + 1} is cut short: it has no end.")
    before: Entry | None = None
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry.parse(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"Line {number} was changed: it is no entry of a ledger ({error}).")
            before = None
            continue
        if entry.line() != line or entry.sealed().hash != entry.hash:
            problems.append(f"Line {number} was changed: its content does not fit its hash.")
        elif entry.number != number:
            problems.append(f"Line {number} is request {entry.number}: lines are missing, were added, or were moved.")
        elif number == 1 and entry.previous != START:
            problems.append("Line 1 was changed, or lines before it are missing: it continues another one.")
        elif before is not None and entry.previous != before.hash:
            problems.append(f"Line {number} does not continue line {number - 1}: one of them was changed or replaced.")
        elif before is not None and entry.before != before.after:
            problems.append(f"Line {number} starts from another checkpoint than line {number - 1} ended with.")
        entries.append(entry)
        before = entry
    return entries, problems


def _known(folder: Path) -> tuple[list[PastRequest] | None, list[str]]:
    """What the report of the run says of its history; None where there is none that can be read."""
    if not (folder / REPORT).is_file():
        return None, []
    try:
        return Report.load(folder).history, []
    except ConfigError as error:
        return None, [f"The report cannot be compared: {error}"]


def _against_report(entries: Sequence[Entry], known: Sequence[PastRequest]) -> list[str]:
    problems = []
    if len(entries) < len(known):
        written = f"the report was written with {plural(len(known), 'request')}"
        problems.append(f"The end is missing: {written}, and the ledger has {len(entries)}.")
    if len(entries) > len(known):
        problems.append(f"Lines {len(known) + 1} to {len(entries)} were added: the report was written with {len(known)}.")
    for entry, past in zip(entries, known, strict=False):
        if past not in past_requests([entry]):
            problems.append(f"Line {entry.number} is not the one that the report was written with.")
    return problems


def _forgets(folder: Path) -> bool:
    """Whether a folder holds the result of a request by what lies there beside a ledger."""
    if not (folder / UNLEARNED).is_file() or not (folder / SPLIT).is_file():
        return False
    try:
        split = SavedSplit.load(folder / SPLIT)
    except CheckpointError:
        return True
    return bool(split.forget or split.removed or split.withdrawn)


def _against_files(folder: Path, entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return [f"{LEDGER} is empty."]
    problems = []
    checkpoint = folder / UNLEARNED
    if not checkpoint.is_file():
        problems.append(f"{UNLEARNED} is missing.")
    elif hash_of_file(checkpoint) != entries[-1].after:
        last = entries[-1].number
        problems.append(f"{UNLEARNED} is not that of line {last}: it was changed, or the ledger's end is missing.")
    try:
        split = SavedSplit.load(folder / SPLIT)
    except CheckpointError as error:
        return [*problems, str(error)]
    gone = {*split.forget, *split.removed}
    for entry in entries:
        lost = len(set(entry.keys) - gone)
        if lost:
            problems.append(f"{SPLIT} does not know {plural(lost, 'sample')} of line {entry.number} as forgotten.")
        back = len(set(entry.withdrawn) - {*split.withdrawn})
        if back:
            problems.append(f"{SPLIT} does not know {plural(back, 'sample')} of line {entry.number} as withdrawn.")
    if set(split.forget) != set(entries[-1].keys):
        problems.append(f"What {SPLIT} calls forgotten is not what line {entries[-1].number} names.")
    return problems
