"""The sections that compare methods: leaderboard, cost against gap, spread, paired differences, time."""

import math
from collections.abc import Sequence

from lightning_unlearn.report import figures_benchmark
from lightning_unlearn.report.labels import metric, number, plain, with_spread
from lightning_unlearn.report.leaderboard import (
    Line,
    family,
    leaderboard,
    leaders,
    paired_difference,
    pareto_front,
    ranked_by,
)
from lightning_unlearn.report.legend import legend
from lightning_unlearn.report.markup import Html, figure, fold, grid, name, paragraph, raw, section, table
from lightning_unlearn.report.schema import Report, Row

__all__ = ["COLUMNS", "best_cells", "board", "pairs", "stage_table", "trade_off"]

COLUMNS = ("gap/avg", "forget/acc", "retain/acc", "test/acc", "attack/success", "mia/efficacy", "relearn/gap", "cost/share",
           "time/unlearn_s")  # fmt: skip
LEVEL = (
    "The gap of the line \u201creference to reference\u201d is what two retrained models differ by: no method can be asked "
    "for less."
)
REPAIR = (
    "The original learnt all labels as they are; the retrained reference never saw the forgotten samples, as if they had been "
    "removed before training; a model trained on true labels is what could be reached if each wrong label were put right."
)


def _families(lines: Sequence[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.family, []).append(line)
    return found


def board(report: Report) -> Html:
    """The leaderboard of each request family.

    Args:
        report: A benchmark.

    Returns:
        A section.
    """
    parts: list[Html] = []
    names: list[str] = []
    key, larger = ranked_by(report.goal)
    for title, lines in _families(leaderboard(report)).items():
        present = list(dict.fromkeys(column for line in lines for column in line.metrics))
        columns = [column for column in COLUMNS if column in present]
        if larger:
            columns = [key, *(column for column in columns if column != key)]
        others = [column for column in present if column not in COLUMNS]
        names += [*columns, *others]
        looks = (pareto_front(lines, gap=key, larger=larger), leaders(lines, key), report.goal)
        parts += [Html(f"<h3>{name(title)}</h3>"), _lines(lines, columns, *looks)]
        if others:
            parts.append(fold("More metrics", _lines(lines, others, *looks)))
    order = "highest test accuracy" if larger else "smallest average gap"
    explanation = (
        f"{metric(key).label} decides the order, {order} first. Mean \u00b1 standard deviation "
        "over draws and seeds; "
        f"\u25c6 on the Pareto front of cost and {metric(key).short.lower()}. {REPAIR if larger else LEVEL}"
    )
    return section("Leaderboard", *parts, paragraph(explanation, css="quiet"), legend(names, report.goal))


def _lines(lines: Sequence[Line], columns: Sequence[str], front: Sequence[Line], first: Sequence[Line], goal: str) -> Html:
    rows, marked, before = [], [], "method"
    for line in lines:
        cells = [
            with_spread(column, line.metrics[column].mean, line.metrics[column].sd) if column in line.metrics else ""
            for column in columns
        ]
        star = Html('\u00a0<span title="on the Pareto front">\u25c6</span>') if line in front else Html("")
        rows.append([raw(name(line.method), star), str(line.n), *cells])
        css = [
            "best" if line in first else "",
            "level" if line.role == "level" else "",
        ]
        css.append("rule" if line.role != "method" and before == "method" else "")
        marked.append(" ".join(item for item in css if item))
        before = line.role
    head = ["Method", "Models", *(metric(column, goal).short + _unit(column) for column in columns)]
    return table(head, rows, marked=marked)


def _unit(column: str) -> str:
    return ", %" if metric(column).unit == "points" and column.endswith(("acc", "efficacy")) else ""


def trade_off(report: Report) -> Html:
    """Cost against gap with the Pareto front, and the spread over draws and seeds.

    Args:
        report: A benchmark.

    Returns:
        A section.
    """
    parts = []
    families = _families(leaderboard(report))
    for position, (title, lines) in enumerate(families.items()):
        rows = [row for row in report.rows if family(row.request) == title]
        drawings = [
            figure(
                "" if report.goal == "repair" else figures_benchmark.cost_against_gap(lines, f"cost{position}"),
                "Filled: on the Pareto front. Bars: one standard deviation. Band: what two references differ by.",
            ),
            figure(
                figures_benchmark.spread(rows, lines, f"spread{position}", ranked_by(report.goal)[0]),
                "One point per model; each forget set has its mark.",
            ),
        ]
        heading = Html(f"<h3>{name(title)}</h3>") if len(families) > 1 and any(drawings) else Html("")
        parts += [heading, grid(*drawings)]
    return section("Cost, quality and spread", *parts)


def pairs(report: Report) -> Html:
    """What each method differs by from the first one, paired by request and seed.

    Args:
        report: A benchmark.

    Returns:
        A section; empty with a single method.
    """
    key, _ = ranked_by(report.goal)
    parts = []
    families = _families(leaderboard(report))
    for title, lines in families.items():
        methods = [line.method for line in lines if line.role == "method"]
        rows = [row for row in report.rows if family(row.request) == title]
        found = []
        for other in methods[1:]:
            mean, error, n = paired_difference(rows, other, methods[0], key)
            if n:
                shown = with_spread(key, mean, error)
                found.append([name(other), ("+" if mean > 0 else "") + shown, str(n)])
        if found:
            heading = Html(f"<h3>{name(title)}</h3>") if len(families) > 1 else Html("")
            head = ["Method", f"{metric(key).short} minus that of {plain(methods[0])}", "Pairs"]
            parts += [heading, table(head, found)]
    note = (
        "The same request and seed are compared, so that what is hard about a forget set drops "
        "out. Mean \u00b1 standard "
        "error of the mean. Pairs of one forget set are not independent: with few sets the error "
        "is too small."
    )
    return section("Differences between methods", *parts, paragraph(note, css="quiet")) if parts else Html("")


def stage_table(report: Report) -> Html:
    """The mean time of each stage of each method.

    Args:
        report: A benchmark.

    Returns:
        A section; empty without stages.
    """
    rows = []
    for line in leaderboard(report):
        cells = [
            row for row in report.rows
            if row.role == "method" and row.method == line.method and family(row.request) == line.family
        ]  # fmt: skip
        if line.role != "method" or not cells:
            continue
        order = dict.fromkeys((position, stage.name) for row in cells for position, stage in enumerate(row.stages))
        for position, stage_name in sorted(order, key=lambda key: key[0]):
            same = [
                row.stages[position] for row in cells
                if position < len(row.stages) and row.stages[position].name == stage_name
            ]  # fmt: skip
            time = sum(stage.seconds for stage in same) / len(same)
            share = sum(stage.share for stage in same) / len(same)
            rows.append([
                name(line.method),
                name(stage_name),
                number("time/unlearn_s", time),
                number("cost/share", share),
            ])
    full = table(["Method", "Stage", "Wall time", "Share of retraining"], rows, words=2)
    body = fold(f"{len(rows)} stages", full) if len(rows) > 30 else full
    return section("Time per stage", body, paragraph("Mean over draws and seeds.", css="quiet")) if rows else Html("")


def best_cells(report: Report) -> list[Row]:
    """The rows whose details stand for a benchmark.

    Args:
        report: A benchmark.

    Returns:
        Of each request family, the first cell of the method that leads.
    """
    chosen = []
    for title, lines in _families(leaderboard(report)).items():
        leading = next((line for line in lines if line.role == "method"), None)
        key = ranked_by(report.goal)[0]
        if leading is None or not math.isfinite(leading.metrics[key].mean if key in leading.metrics else math.nan):
            continue
        chosen += [
            row for row in report.rows
            if row.role == "method" and row.method == leading.method and family(row.request) == title
        ][:1]  # fmt: skip
    return chosen
