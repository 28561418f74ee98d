"""The ledger: whatever is done to a line is found and named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.exceptions import RunError
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.requests.ledger import BEGUN, START, Entry, append, in_words, past_requests, read_ledger, verify

COUNT = 5


def entry(number, previous, before, after):
    keys = [f"cat/{number}{i}.png" for i in range(3)]
    rule = 'listed in "first".csv\n\u202e'
    times = "2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00"
    return Entry(number, *times, rule, keys, "fine_tune", "5" * 64, before, after, previous).sealed()


@pytest.fixture
def run(tmp_path):
    """A folder after five requests."""
    (tmp_path / "unlearned.ckpt").write_bytes(b"weights")
    afters = [f"{i:064x}" for i in range(COUNT - 1)] + [hash_of_file(tmp_path / "unlearned.ckpt")]
    entries: list[Entry] = []
    for i, after in enumerate(afters):
        last = entries[-1] if entries else None
        new = entry(i + 1, last.hash if last else START, last.after if last else None, after)
        append(tmp_path, entries, new)
        entries.append(new)
    write_report(tmp_path, entries)
    removed = [key for e in entries[:-1] for key in e.keys]
    SavedSplit(entries[-1].keys, ["a"], ["b"], removed).save(tmp_path / "split.json")
    return tmp_path


def write_report(folder, entries):
    save_report(Report("unlearn", "", "", "untrain", "screen", history=past_requests(entries)), folder)


def lines(run):
    return (run / "ledger.jsonl").read_text().splitlines(keepends=True)


def write(run, changed):
    (run / "ledger.jsonl").write_text("".join(changed))


def forged(line, **changes):
    """A line that somebody changed, with a hash that fits."""
    return replace(Entry.parse(line), **changes).sealed().line() + "\n"


def test_a_whole_ledger_is_read_back(run):
    entries, problems = verify(run)
    assert problems == []
    assert [e.number for e in entries] == [1, 2, 3, 4, 5]
    assert read_ledger(run) == entries
    assert all(Entry.parse(e.line()) == e for e in entries)


@pytest.mark.parametrize("at", range(COUNT))
def test_an_edited_line_is_named(run, at):
    whole = lines(run)
    content = json.loads(whole[at])
    for name, value in content.items():
        other = {"number": 99, "keys": ["dog/1.png"], "before": "x"}.get(name, "x")
        assert other != value
        edited = json.dumps(content | {name: other}, separators=(",", ":")) + "\n"
        write(run, [*whole[:at], edited, *whole[at + 1 :]])
        assert any(problem.startswith(f"Line {at + 1} was changed") for problem in verify(run)[1]), name
    # Not a letter, not even a space.
    others = ("\n", '{"number":1}\n', "[" * 100000 + "\n", "5\n", "null\n", "true\n", '"withdrawn"\n', '["withdrawn"]\n')
    for edited in (whole[at].replace('":', '": ', 1), whole[at][:-3] + "\n", *others):
        write(run, [*whole[:at], edited, *whole[at + 1 :]])
        assert any(problem.startswith(f"Line {at + 1} was changed") for problem in verify(run)[1])


@pytest.mark.parametrize("at", range(COUNT))
def test_an_edited_line_with_a_hash_that_fits_is_named(run, at):
    whole = lines(run)
    write(run, [*whole[:at], forged(whole[at], keys=[]), *whole[at + 1 :]])
    problems = verify(run)[1]
    # The next line continues another one; the report knows which line it was.
    assert any(problem.startswith(f"Line {at + 1} is not the one that the report") for problem in problems)
    if at < COUNT - 1:
        assert any(problem.startswith(f"Line {at + 2} does not continue line {at + 1}") for problem in problems)


@pytest.mark.parametrize("at", range(COUNT))
def test_a_deleted_line_is_found(run, at):
    whole = lines(run)
    write(run, [*whole[:at], *whole[at + 1 :]])
    problems = verify(run)[1]
    if at < COUNT - 1:
        assert f"Line {at + 1} is request {at + 2}: lines are missing, were added, or were moved." in problems
    assert any("The end is missing" in problem for problem in problems)


def test_moved_repeated_and_added_lines_are_found(run):
    whole = lines(run)
    for i in range(COUNT):
        for j in range(i):
            moved = list(whole)
            moved[i], moved[j] = whole[j], whole[i]
            write(run, moved)
            assert any(problem.startswith(f"Line {j + 1} is request {i + 1}") for problem in verify(run)[1])
    write(run, [*whole, whole[-1]])
    assert "Line 6 is request 5: lines are missing, were added, or were moved." in verify(run)[1]
    last = Entry.parse(whole[-1])
    write(run, [*whole, entry(6, last.hash, last.after, "7" * 64).line() + "\n"])
    assert "Lines 6 to 6 were added: the report was written with 5." in verify(run)[1]


@pytest.mark.parametrize("kept", range(COUNT))
def test_a_cut_end_is_found_by_the_report_and_by_the_checkpoint(run, kept):
    write(run, lines(run)[:kept])
    problems = verify(run)[1]
    assert f"The end is missing: the report was written with 5 requests, and the ledger has {kept}." in problems
    # Also where the report was cut with it.
    write_report(run, verify(run)[0])
    problems = verify(run)[1]
    named = f"unlearned.ckpt is not that of line {kept}: it was changed, or the ledger's end is missing."
    assert (named if kept else "ledger.jsonl is empty.") in problems


def test_a_torn_end_a_missing_file_and_an_unfinished_request(run):
    text = (run / "ledger.jsonl").read_text()
    (run / "ledger.jsonl").write_text(text[:-1])
    assert "Line 5 is cut short: it has no end." in verify(run)[1]
    (run / "ledger.jsonl").unlink()
    assert verify(run)[1] == ["ledger.jsonl is missing, and the report knows 5 requests."]
    (run / BEGUN).touch()
    assert "A request was begun and not finished." in verify(run)[1][0]
    with pytest.raises(RunError, match="is not whole"):
        read_ledger(run)


def test_without_its_report_no_line_was_added(run):
    (run / "report.json").write_text("{")
    [problem] = verify(run)[1]
    assert problem.startswith("The report cannot be compared: ")
    (run / "report.json").unlink()
    [problem] = verify(run)[1]
    assert problem.startswith("report.json is missing, which names the hash of every line")
    with pytest.raises(RunError, match=r"report\.json is missing"):
        read_ledger(run)


def test_what_lies_beside_the_ledger_is_compared(run):
    split = SavedSplit.load(run / "split.json")
    SavedSplit(split.forget, split.retain, split.unseen, split.removed[3:]).save(run / "split.json")
    assert verify(run)[1] == ["split.json does not know 3 samples of line 1 as forgotten."]
    SavedSplit(split.forget[1:], split.retain, split.unseen, [*split.removed, split.forget[0]]).save(run / "split.json")
    assert verify(run)[1] == ["What split.json calls forgotten is not what line 5 names."]
    split.save(run / "split.json")
    (run / "unlearned.ckpt").write_bytes(b"others")
    assert "unlearned.ckpt is not that of line 5" in verify(run)[1][0]
    (run / "unlearned.ckpt").unlink()
    assert verify(run)[1] == ["unlearned.ckpt is missing."]


def test_what_cannot_be_found(run):
    """Said in the module: who replaces ledger, report, split and checkpoint together is seen by the last hash alone."""
    before = read_ledger(run)
    first = replace(before[0], after=before[-1].after).sealed()
    append(run, [], first)
    write_report(run, [first])
    SavedSplit(first.keys, ["a"], ["b"], []).save(run / "split.json")
    assert verify(run)[1] == []
    assert read_ledger(run)[-1].hash != before[-1].hash


def test_a_result_without_ledger_and_report_is_no_empty_history(run):
    (run / "ledger.jsonl").unlink()
    (run / "report.json").unlink()
    assert verify(run)[1] == ["ledger.jsonl is missing, and split.json knows of forgotten samples."]
    with pytest.raises(RunError, match="Restore the folder from a backup"):
        read_ledger(run)
    # A model that was trained, and forgot nothing.
    SavedSplit([], ["a"], ["b"], []).save(run / "split.json")
    assert verify(run) == ([], [])


def test_what_was_forgotten_in_words():
    assert in_words([]) == "0 samples"
    assert in_words(["a"]) == "1 sample"
    assert in_words(["a", "b", "class:3"]) == "2 samples and 1 class"
    assert in_words(["class:3", "class:10"]) == "2 classes"
    one = entry(1, START, None, "0")
    assert [past.amount for past in past_requests([one, replace(one, keys=["class:3"])])] == ["3 samples", "1 class"]


def test_no_folder_of_a_run():
    assert verify(Path("nowhere")) == ([], [])


def test_withdrawn_samples_stand_in_the_line_where_there_are_some(run):
    first = entry(1, START, None, "7" * 64)
    assert "withdrawn" not in first.line()
    assert first.hash == "edff5f908a04ae9be69b1a356094f8195841bb381b6fb506cb2c3bbf8628ddf0"  # as earlier versions wrote it
    more = replace(first, withdrawn=["dog/1.png"]).sealed()
    assert more.hash != first.hash
    assert Entry.parse(more.line()) == more
    assert past_requests([more])[0].amount == "3 samples and 1 withdrawn, never trained on"
    assert in_words([], ["dog/1.png"]) == "0 samples and 1 withdrawn, never trained on"
