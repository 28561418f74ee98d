"""The report in the terminal: a rich table there, plain lines in a log or a pipe."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from lightning_unlearn.report.audit_wording import ranked
from lightning_unlearn.report.comparison import MAIN, before, compare, references_of, subjects
from lightning_unlearn.report.labels import count, metric, number, plain, with_spread
from lightning_unlearn.report.leaderboard import leaderboard, leaders, pareto_front, ranked_by
from lightning_unlearn.report.legend import legend_lines
from lightning_unlearn.report.markup import filled
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.sections_audit import AUDIT_COLUMNS, shown_name
from lightning_unlearn.report.sections_curves import curve_cells
from lightning_unlearn.report.sections_detect import DETECT_HEAD, detect_cells
from lightning_unlearn.report.wording import reading, remarks, summary, tier_line

__all__ = ["Grid", "grids", "show"]

WIDTH = 100
NAME = 30
GAP = 2
NOTES = 8
# Which columns stay where there is no room for all, the most important first.
PRIORITY = ("gap/avg", "test/acc", "attack/success", "forget/acc", "cost/share", "retain/acc", "relearn/gap", "time/unlearn_s",
            "mia/efficacy", "forget_unseen/auc", "js/forget", "mia/auc", "memory/peak_mb")  # fmt: skip
ORDER = ("gap/avg", "forget/acc", "retain/acc", "test/acc", "attack/success", "mia/efficacy", "mia/auc", "forget_unseen/auc",
         "js/forget", "relearn/gap", "cost/share", "time/unlearn_s", "memory/peak_mb")  # fmt: skip
AUDIT_PRIORITY = ("rank_auc", "ulira", "rmia/auc", "rmia1/auc", "rank_auc/p_holm", "cost/share", "klom/median", "f",
                  "rmia/tpr@1fpr", "test/acc", "forget/acc", "ulira/references", "retain/acc")  # fmt: skip
COSTS = ("cost/share", "time/unlearn_s", "memory/peak_mb")
EXTRA = (*COSTS, "forget_unseen/auc", "streisand", "churn", "tow")
ASCII = str.maketrans({
    "±": "+/-",
    "\u2212": "-",
    "\u202f": " ",
    "\u2014": "-",
    "\u25c6": "*",
    "\u2026": "...",
})


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        title: Above it.
        head: Of the columns; the first holds names, the others numbers.
        rows: Cells, as many as columns.
        strong: Rows that stand out.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    strong: tuple[int, ...] = ()


def grids(report: Report, width: int = WIDTH) -> list[Grid]:
    """The tables of a report, their columns chosen to fit.

    Args:
        report: Of any kind.
        width: In letters.

    Returns:
        A leaderboard per request family for a benchmark, the groups of an audit, else each model beside its reference.
    """
    makers = {"benchmark": _leaderboards, "audit": _audits, "detect": _scores}
    return makers.get(report.kind, _models)(report, width)


def show(report: Report, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print a report.

    Args:
        report: Of any kind.
        stream: Where; the standard output by default. Where it is no terminal, no escape codes are written.
        width: In letters; the terminal's, at most 100, by default.
    """
    out = stream or sys.stdout
    terminal = out.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (getattr(out, "encoding", None) or "utf-8").lower()
    width = width or min(_columns(), WIDTH)
    if terminal and encoding.startswith("utf"):
        _show_rich(report, out, width)
        return
    text = "\n".join(_lines(report, width)) + "\n"
    if not encoding.startswith("utf"):
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    out.write(text)


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return WIDTH


def _leaderboards(report: Report, width: int) -> list[Grid]:
    found = []
    lines = leaderboard(report)
    for title in dict.fromkeys(line.family for line in lines):
        shown = [line for line in lines if line.family == title]
        key, larger = ranked_by(report.goal)
        front = pareto_front(shown, gap=key, larger=larger)
        names = [_clip(line.method) + (" \u25c6" if line in front else "") for line in shown]
        cells = {
            key: [
                with_spread(key, line.metrics[key].mean, line.metrics[key].sd) if key in line.metrics else "" for line in shown
            ]
            for key in ORDER
            if any(key in line.metrics for line in shown)
        }
        counts = [str(line.n) for line in shown]
        taken = _longest(["Method", *names]) + GAP + _longest(["n", *counts])
        kept = _fitting(cells, width - taken, report.goal)
        rows = [[name, n, *(cells[key][row] for key in kept)] for row, (name, n) in enumerate(zip(names, counts, strict=True))]
        strong = tuple(range(len(leaders(shown, key))))
        found.append(Grid(plain(title), ["Method", "n", *(metric(key, report.goal).short for key in kept)], rows, strong))
    return found + _curves(report, width)


def _curves(report: Report, width: int) -> list[Grid]:
    """How well scores find wrong labels, below one another: there are too many for a line."""
    head, rows = curve_cells(report.curves)
    return [
        Grid(f"finding wrong labels, {plain(row[0])}", ["Area under the ROC curve; decision", "mean"], cells)
        for row in rows
        if (cells := [[what, value] for what, value in zip(head[2:], row[2:], strict=True)])
    ]


def _audits(report: Report, width: int) -> list[Grid]:
    found = []
    for audit in report.audits:
        lines = ranked(audit.of())
        names = [_clip(shown_name(line)) for line in lines]
        cells = {
            key: [number(key, line.metrics[key]) if key in line.metrics else "" for line in lines]
            for key in AUDIT_COLUMNS
            if any(key in line.metrics for line in lines)
        }
        room = width - _longest(["Group", *names])
        kept = []
        for key in AUDIT_PRIORITY:
            if key in cells:
                room -= _longest([metric(key).short, *cells[key]]) + GAP
                if room < 0:
                    break
                kept.append(key)
        shown = [key for key in cells if key in kept]
        rows = [[name, *(cells[key][row] for key in shown)] for row, name in enumerate(names)]
        strong = tuple(i for i, line in enumerate(lines) if line.verdict.startswith("not distinguished"))
        title = f"{plain(audit.request)}, {max((line.models for line in lines), default=0)} models a side"
        found.append(Grid(title, ["Group", *(metric(key).short for key in shown)], rows, strong))
    return found


def _scores(report: Report, width: int) -> list[Grid]:
    if report.detected is None:
        return []
    head, rows = filled(DETECT_HEAD, [detect_cells(score) for score in report.detected.scores])
    return [Grid("Scores of labels", head, rows, (0,))]


def _fitting(cells: dict[str, list[str]], room: int, goal: str) -> list[str]:
    # The most important are kept first, and shown in the order of the table.
    kept = []
    for key in PRIORITY:
        if key in cells:
            room -= _longest([metric(key, goal).short, *cells[key]]) + GAP
            if room < 0:
                break
            kept.append(key)
    return [key for key in ORDER if key in kept]


def _models(report: Report, width: int) -> list[Grid]:
    found = []
    for row in subjects(report):
        # A backdoor was planted to be forgotten: whether it was comes first.
        # A repair is for clean test accuracy.
        first = ("attack/success", *(["test/acc"] if report.goal == "repair" else []))
        names = tuple(dict.fromkeys([*first, *MAIN, *EXTRA]))
        entries = [entry for entry in compare(report, row, names) if math.isfinite(entry.value)]
        # A cost has no reference that it should equal.
        compared = [entry.metric not in COSTS for entry in entries]
        to_reference = "Before to ref." if report.is_later else "Orig. to ref."
        columns = {"This model": [number(entry.metric, entry.value) for entry in entries]}
        if references_of(report, row) or "gap/avg" in row.metrics:
            columns |= {
                "Reference": [number(entry.metric, entry.reference) for entry in entries],
                "Difference": [number(entry.metric, entry.difference, sign=True) for entry in entries],
                "Ref. to ref.": [number(entry.metric, entry.level) for entry in entries],
                to_reference: [number(entry.metric, entry.original_level) for entry in entries],
            }
            for cells in list(columns.values())[2:]:
                cells[:] = [cell if asked else "" for cell, asked in zip(cells, compared, strict=True)]
        columns[before(report)] = [
            number(entry.metric, entry.original) if asked else "" for entry, asked in zip(entries, compared, strict=True)
        ]
        if "Reference" in columns:
            columns["Against level"] = [reading(entry.difference, entry.level) for entry in entries]
        head, labels = ["", *columns], [metric(entry.metric, report.goal).short for entry in entries]
        rows = [[label, *(cells[i] for cells in columns.values())] for i, label in enumerate(labels)]
        while len(head) > 2 and _width(head, rows) > width:
            # The last columns follow from the first ones; both levels stay longest.
            head, rows = head[:-1], [cells[:-1] for cells in rows]
        found.append(Grid(f"{plain(row.method)}, {plain(row.request)}, seed {row.seed}", head, rows))
    return found


def _before(report: Report) -> list[str]:
    lines = [plain(report.title), tier_line(report)]
    for request in report.requests:
        share = f"{count(request.count)} of {count(request.of)} samples"
        copies = ", exact copies in retain not searched" if request.copies_left is None else ""
        lines.append(f"forget: {plain(request.name)}, {share}, hash {plain(request.digest[:12])}{copies}")
    for past in report.history if len(report.history) > 1 else []:
        lines.append(f"request {past.number}: {plain(past.time)}, {past.amount}, {plain(past.rule)}")
    if report.history:
        lines.append(f"ledger: last hash {plain(report.history[-1].hash)}")
    void = [reason for audit in report.audits for reason in audit.void]
    lines += [f"warning: {plain(warning)}" for warning in [*void, *report.warnings]]
    return lines


def _after(report: Report, found: list[Grid]) -> list[str]:
    notes = [f"note: {plain(note)}" for note in remarks(report)]
    if len(notes) > NOTES:
        notes = [*notes[:NOTES], f"{len(notes) - NOTES} more notes stand in report.html"]
    verdicts = [
        f"{plain(line.method)}: {line.verdict}" for audit in report.audits for line in ranked(audit.of()) if line.verdict
    ]
    return [" ".join(summary(report)), *verdicts, *notes, *_legend(report, found)]


def _legend(report: Report, found: list[Grid]) -> list[str]:
    if report.kind in ("audit", "detect"):
        return []
    if report.kind != "benchmark":
        return legend_lines((row[0] for grid in found for row in grid.rows), report.goal)
    n = "n: models" + " (reference to reference: forget sets)" * bool(report.levels)
    marks = f"{n}; \u25c6: on the Pareto front of cost and {metric(ranked_by(report.goal)[0]).short}"
    return [*[marks] * bool(found), *legend_lines((name for grid in found for name in grid.head), report.goal)]


def _lines(report: Report, width: int) -> list[str]:
    from rich.cells import cell_len

    lines, found = [*_before(report), ""], grids(report, width)
    for grid in found:
        sizes = [_longest(column) for column in zip(grid.head, *grid.rows, strict=True)]
        lines.append(grid.title)
        for cells in (grid.head, *grid.rows):
            first = cells[0] + " " * (sizes[0] - cell_len(cells[0]))
            rest = [" " * (size - cell_len(cell)) + cell for size, cell in zip(sizes[1:], cells[1:], strict=True)]
            lines.append((" " * GAP).join([first, *rest]).rstrip())
        lines.append("")
    return [*lines, *_after(report, found)]


def _show_rich(report: Report, stream: TextIO, width: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    title, tier, *others = _before(report)
    console.print(Text(title, style="bold"))
    console.print(Text(tier, style="yellow"))
    for line in others:
        console.print(Text(line, style="yellow" if line.startswith("warning") else "dim"))
    found = grids(report, width)
    for grid in found:
        # Text, never a string: a name in brackets would be taken for markup.
        table = Table(
            box=SIMPLE_HEAD, title=Text(grid.title, style="bold"), title_justify="left", show_edge=False,
            pad_edge=False, padding=(0, GAP - 1, 0, 0),
        )  # fmt: skip
        for position, name in enumerate(grid.head):
            table.add_column(Text(name), justify="left" if position == 0 else "right", no_wrap=True)
        for position, cells in enumerate(grid.rows):
            style = "bold" if position in grid.strong else ""
            table.add_row(*(Text(cell, style=style) for cell in cells))
        console.print()
        console.print(table)
        console.print()
    for line in _after(report, found):
        console.print(Text(line))


def _clip(text: str) -> str:
    line = plain(text)
    return line if len(line) <= NAME else line[: NAME - 1] + "\u2026"


def _longest(cells: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(cell_len(cell) for cell in cells)


def _width(head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    sizes = [_longest(column) for column in zip(head, *rows, strict=True)]
    return sum(sizes) + GAP * (len(sizes) - 1)
