"""The report in the terminal."""

import io
import math
from dataclasses import replace

import pytest
from report_samples import EVIL, benchmark, hostile, single
from rich.cells import cell_len

from lightning_unlearn.report.labels import plain
from lightning_unlearn.report.ledger_schema import PastRequest
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.report.table import grids, show
from lightning_unlearn.report.wording import noted, summary


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def shown(report, width=None, stream=None):
    out = stream or io.StringIO()
    show(report, out, width)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("report", [single(), single(reference=False), benchmark(), hostile()])
def test_tables_fit(report, width, monkeypatch):
    for grid in grids(report, width):
        for cells in (grid.head, *grid.rows):
            assert len(cells) == len(grid.head)
        sizes = [max(cell_len(cell) for cell in column) for column in zip(grid.head, *grid.rows, strict=True)]
        assert sum(sizes) + 2 * (len(sizes) - 1) <= width
    monkeypatch.setenv("TERM", "xterm-256color")
    plain_lines = [line for line in shown(report, width, Terminal()).splitlines() if "\x1b[1m" not in line]
    assert all(cell_len(line) <= width or "\x1b" in line for line in plain_lines)


def test_leaderboard_keeps_the_gap_and_the_levels():
    (wide,), (narrow,) = grids(benchmark(), 100), grids(benchmark(), 80)
    assert set(narrow.head) < set(wide.head)
    assert {"Method", "n", "Gap", "Cost"} <= set(narrow.head)
    assert [row[0] for row in wide.rows] == [
        "Alpha \u25c6", "Beta \u25c6", "retrained reference", "original", "reference to reference",
    ]  # fmt: skip
    assert wide.rows[0][wide.head.index("Gap")] == "1.30 ± 0.29"
    assert wide.rows[4][wide.head.index("Gap")] == "0.90 ± 0.14"


def test_one_model_keeps_both_levels_at_80():
    (grid,) = grids(single(), 80)
    assert grid.head[:6] == ["", "This model", "Reference", "Difference", "Ref. to ref.", "Orig. to ref."]
    assert grid.rows[0][:6] == ["Gap", "2.00", "\u2014", "+2.00", "0.80", "9.00"]


@pytest.mark.parametrize(("earlier", "requests", "later"), [(0, 0, False), (0, 1, False), (0, 2, True), (1, 2, True)])
def test_what_an_earlier_request_made_is_no_original(earlier, requests, later):
    past = [PastRequest(i, "", "rule", 1, "FineTune", "s", "b", "a", "0") for i in range(1, requests + 1)]
    report = replace(single(), earlier=earlier, history=past)
    (grid,) = grids(report, 200)
    assert report.is_later == later
    assert ("Before to ref." in grid.head, "Before this request" in grid.head) == (later, later)
    assert ("the model before this request" in " ".join(summary(report))) == later


def test_pipe_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = shown(benchmark())
    assert "\x1b" not in text
    assert "screening: not evidence of forgetting" in text
    assert "1.30 ± 0.29" in text


def test_terminal_gets_bold(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(benchmark(), 100, Terminal())
    assert "\x1b[1m" in text
    assert "1.30 ± 0.29" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_neither_markup_nor_escape_codes(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(hostile(), 400, Terminal() if terminal else None)
    assert "[bold red]rich[/bold red]" in text
    assert "\x1b[31m" not in text
    assert "\x1b]8" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    for name in EVIL:
        assert plain(name) in text


def test_stream_of_few_letters():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show(benchmark(), stream)
    stream.flush()
    assert b"1.30 +/- 0.29" in raw.getvalue()


def test_names_that_do_not_speak_for_themselves_are_explained():
    row = Row("m", "method", "r", 0, {"forget/acc": 50.0, "streisand": -0.1, "churn": math.nan})
    text = shown(Report("unlearn", "t", "", "", "", rows=[row]), 100)
    assert "Streisand: Forgotten minus unseen confidence, below 0 where forgetting shows" in text
    assert "Churn:" not in text
    assert "Forget acc:" not in text


def test_whether_the_backdoor_is_gone_comes_first():
    report = single(reference=False)
    report.rows[0].metrics["attack/success"] = 12.5
    [grid] = grids(report)
    assert grid.rows[0][:2] == ["Attack succ", "12.5"]


@pytest.mark.parametrize(
    ("count", "gone", "few"), [(1, 0, True), (9, 0, True), (10, 0, False), (500, 0, False), (500, 491, True)]
)
def test_few_samples_give_no_verdict(count, gone, few):
    report = single(reference=False)
    report.requests[0].count, report.requests[0].gone = count, gone
    for row in report.rows:
        row.metrics |= {"forget_unseen/auc": 0.0, "forget_unseen/auc/low": 0.0, "forget_unseen/auc/high": 0.476}
    text = shown(report)
    assert ("too few to say" in text) == few
    assert ("are distinguishable from unseen ones" in text) == (not few)
    assert ("1 forgotten sample is too few" in text) == (count == 1)
    assert ("1 of 2\u202f500 training samples was to be forgotten" in text) == (count == 1)
    assert ("9 forgotten samples are too few" in text) == (count - gone == 9)


def test_a_note_of_every_seed_is_one_with_the_range_of_its_figures():
    rows = [
        Row(
            method,
            "method",
            "few",
            seed,
            {},
            notes=[f"40 forgotten samples: the error is {error} points (TPR @ 1 %).", "so"],
        )
        for method, errors in (("Alpha", (1.8, 5.0, 2.5)), ("Beta", (1.8, 1.8)))
        for seed, error in enumerate(errors)
    ]
    assert noted(rows) == [
        "Alpha: 40 forgotten samples: the error is 1.8 to 5.0 points (TPR @ 1 %).",
        "Alpha and Beta: so",
        "Beta: 40 forgotten samples: the error is 1.8 points (TPR @ 1 %).",
    ]
    # Names and numbers in them are no figures.
    other = [Row("A", "method", "few", seed, {}, notes=[f"see v{seed}.1.2 and x{seed}"]) for seed in (0, 1)]
    assert noted(other) == ["A: see v0.1.2 and x0", "A: see v1.1.2 and x1"]
    assert noted(rows[:1])[0] == rows[0].notes[0]


def test_short_names_of_the_table_are_explained_below_it():
    report = single()
    report.rows[0].metrics |= {"mia/tpr@1fpr": 3.0, "relearn/acc": 80.0, "js/forget": 0.1}
    (grid,), text = grids(report, 100), shown(report)
    for name in ("Gap", "TPR @ 1 %", "Relearned acc", "JS forget", "Relearn gap"):
        assert name in [cells[0] for cells in grid.rows]
        assert f"\n{name}: " in text
    assert "mia/tpr@1fpr" not in text


def test_short_names_of_a_leaderboard_are_explained_below_it():
    report = benchmark()
    lines = shown(report).splitlines()
    first = "n: models (reference to reference: forget sets); \u25c6: on the Pareto front of cost and Gap"
    legend = lines[lines.index(first) :]
    (grid,) = grids(report)
    assert "Gap: Average gap to retraining" in legend
    assert "Cost: Work, as a share of retraining" in legend
    assert all(line.partition(":")[0] in grid.head for line in legend)
    report.goal = "repair"
    (grid,) = grids(report)
    assert "Given labels" in grid.head
    assert "Forget acc" not in grid.head
    assert "\nGiven labels: Agreement with the given, suspected labels, %\n" in shown(report)
