"""Aggregation against values computed by hand."""

import math

import pytest

from lightning_unlearn.report.leaderboard import (
    Estimate,
    Line,
    estimate,
    family,
    leaderboard,
    paired_difference,
    pareto_front,
    ranked_by,
)
from lightning_unlearn.report.schema import Report, Row


def row(method, request, seed, role="method", **values):
    return Row(method, role, request, seed, {key.replace("_", "/", 1): value for key, value in values.items()})


def report(rows, levels=None, goal="untrain"):
    return Report("benchmark", "t", "", goal, "screen", [], rows, levels or {})


def test_family():
    assert family("random 4 %, draw 0") == "random 4 %"
    assert family("random 4 %, draw 12") == "random 4 %"
    assert family("class 3") == "class 3"
    assert family("draw 3, draw 4") == "draw 3"
    assert family("list, drawing 3") == "list, drawing 3"


def test_estimate_by_hand():
    found = estimate([1.0, 2.0, 4.0, math.nan, math.inf])
    assert found.mean == pytest.approx(7 / 3)
    # ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 42 / 18
    assert found.sd == pytest.approx(math.sqrt(42 / 18))
    assert found.n == 3
    assert estimate([5.0]).mean == pytest.approx(5.0)
    assert math.isnan(estimate([5.0]).sd)
    assert math.isnan(estimate([]).mean)


def test_lines_by_hand():
    rows = [
        row("A", "r, draw 0", 0, gap_avg=1.0, test_acc=80.0),
        row("A", "r, draw 1", 0, gap_avg=3.0),
        row("B", "r, draw 0", 0, gap_avg=1.5, test_acc=70.0),
        row("C", "r, draw 0", 0, test_acc=90.0),
        row("original", "r, draw 0", 0, "original", gap_avg=9.0),
        row("retrained", "r, draw 0", 1, "reference", gap_avg=0.5),
        row("A", "class 3", 0, gap_avg=7.0),
    ]
    levels = {"r, draw 0": {"gap/avg": 0.4}, "r, draw 1": {"gap/avg": 0.6, "js/forget": 0.1}}
    lines = leaderboard(report(rows, levels))
    assert [(line.family, line.method, line.role, line.n) for line in lines] == [
        ("r", "B", "method", 1),
        ("r", "A", "method", 2),
        ("r", "C", "method", 1),
        ("r", "retrained reference", "reference", 1),
        ("r", "original", "original", 1),
        ("r", "reference to reference", "level", 2),
        ("class 3", "A", "method", 1),
    ]
    a = lines[1].metrics
    assert a["gap/avg"] == Estimate(2.0, pytest.approx(math.sqrt(2)), 2)
    assert (a["test/acc"].mean, a["test/acc"].n) == (80.0, 1)
    level = lines[5].metrics
    assert level["gap/avg"].mean == pytest.approx(0.5)
    assert level["js/forget"].n == 1


def test_repair_is_ranked_by_clean_accuracy():
    assert ranked_by("repair") == ("test/acc", True)
    rows = [row("A", "r", 0, gap_avg=1.0, test_acc=70.0), row("B", "r", 0, gap_avg=2.0, test_acc=80.0)]
    assert [line.method for line in leaderboard(report(rows, goal="repair"))] == ["B", "A"]
    assert [line.method for line in leaderboard(report(rows))] == ["A", "B"]


def point(name, cost, gap, role="method"):
    values = {"cost/share": cost, "gap/avg": gap}
    return Line("r", name, role, 1, {key: Estimate(value, math.nan, 1) for key, value in values.items()})


def test_pareto_front():
    lines = [
        point("cheap", 0.01, 5.0),
        point("beaten by cheap", 0.02, 5.0),
        point("middle", 0.1, 2.0),
        point("twin of middle", 0.1, 2.0),
        point("beaten", 0.2, 3.0),
        point("best", 0.5, 1.0),
        point("unknown", 0.001, math.nan),
        point("original", 0.0, 0.0, "original"),
        Line("r", "no cost", "method", 1, {"gap/avg": Estimate(0.1, math.nan, 1)}),
    ]
    assert [line.method for line in pareto_front(lines)] == ["cheap", "middle", "twin of middle", "best"]


def test_paired_difference_by_hand():
    rows = [
        row("A", "d0", 0, gap_avg=3.0),
        row("B", "d0", 0, gap_avg=1.0),
        row("A", "d1", 0, gap_avg=13.0),
        row("B", "d1", 0, gap_avg=12.0),
        row("A", "d1", 1, gap_avg=15.0),
        row("B", "d1", 1, gap_avg=12.0),
        row("A", "d2", 0, gap_avg=99.0),
        row("B", "d2", 1, gap_avg=0.0),
        row("B", "d3", 0, gap_avg=math.nan),
        row("A", "d3", 0, gap_avg=1.0),
        row("A", "d0", 0, "original", gap_avg=50.0),
    ]
    mean, error, n = paired_difference(rows, "A", "B", "gap/avg")
    # Differences 2, 1, 3: the cells without a partner do not enter.
    assert mean == pytest.approx(2.0)
    assert error == pytest.approx(1.0 / math.sqrt(3))
    assert n == 3
    back = paired_difference(rows, "B", "A", "gap/avg")
    assert back == (pytest.approx(-2.0), pytest.approx(error), 3)


def test_paired_difference_of_few():
    rows = [row("A", "d0", 0, gap_avg=3.0), row("B", "d0", 0, gap_avg=1.0)]
    mean, error, n = paired_difference(rows, "A", "B", "gap/avg")
    assert (mean, n) == (2.0, 1)
    assert math.isnan(error)
    mean, error, n = paired_difference(rows, "A", "missing", "gap/avg")
    assert n == 0
    assert math.isnan(mean)
    assert math.isnan(error)
    assert paired_difference(rows, "A", "A", "gap/avg")[0] == pytest.approx(0.0)


def test_cells_with_two_settings_enter_by_their_mean():
    rows = [row("A", "d", 0, gap_avg=1.0), row("A", "d", 0, gap_avg=3.0), row("B", "d", 0, gap_avg=1.0)]
    assert paired_difference(rows, "A", "B", "gap/avg")[0] == pytest.approx(1.0)


def test_pairs_of_references_count_once_and_their_spread_is_that_of_forget_sets():
    """Of two references both rows hold the same pair, so 2.5 twice is no spread of 0."""
    pair = [row("reference", "r, draw 0", i, "reference", gap_avg=2.5, tow=0.9, forget_acc=60.0 + i) for i in range(2)]
    (line,) = leaderboard(report(pair))
    for key, value in (("gap/avg", 2.5), ("tow", 0.9)):
        assert line.metrics[key].mean == pytest.approx(value)
        assert math.isnan(line.metrics[key].sd)
    assert line.metrics["forget/acc"].sd == pytest.approx(math.sqrt(0.5))
    others = [row("reference", "r, draw 1", i, "reference", gap_avg=3.5, forget_acc=60.0) for i in range(2, 4)]
    (line,) = leaderboard(report([*pair, *others]))
    assert (line.n, line.metrics["gap/avg"].n, line.metrics["gap/avg"].mean) == (4, 2, pytest.approx(3.0))
    assert line.metrics["gap/avg"].sd == pytest.approx(math.sqrt(0.5))
