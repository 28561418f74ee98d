"""Reports survive JSON, and what is not one is refused."""

import csv
import io
import json
import math

import pytest
from report_samples import EVIL, benchmark, details, hostile, metrics, request, single

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.merging import merge
from lightning_unlearn.report.schema import Report, Request, Row
from lightning_unlearn.report.writing import save_report


@pytest.mark.parametrize("report", [single(), single(reference=False), benchmark(), hostile()])
def test_round_trip(report, tmp_path):
    save_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "report.html", "report.json"]
    assert Report.load(tmp_path) == report
    assert Report.load(tmp_path / "report.json") == report


def test_same_report_same_bytes(tmp_path):
    save_report(single(), tmp_path / "a")
    save_report(single(), tmp_path / "b")
    for name in ("report.json", "report.csv", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_non_finite_numbers_become_null_and_come_back(tmp_path):
    report = single()
    report.rows[0].metrics |= {"relearn/steps": math.inf, "js/forget": math.nan}
    save_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["metrics"]["relearn/steps"] is None
    found = Report.load(tmp_path).rows[0].metrics
    assert math.isnan(found["relearn/steps"])
    assert math.isnan(found["js/forget"])
    assert found["gap/avg"] == pytest.approx(2.0)


def test_accuracy_of_an_absent_class_stays_none(tmp_path):
    save_report(single(), tmp_path)
    assert Report.load(tmp_path).rows[0].details["per_class"][0]["test"] is None


def plain():
    return json.loads(single().to_json())


def change(path, value):
    found = plain()
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "broken JSON"),
        ('{"schema": 1, ', "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[]", "schema None"),
        (change(["schema"], 2), "schema 2; this version reads schema 1"),
        (change(["kind"], "party"), "report.kind is 'party'; it must be one of unlearn, evaluate, benchmark"),
        (change(["rows"], {}), r"report.rows is {}; it must be a list"),
        (change(["rows", 0, "seed"], "0"), r"report.rows\[0\].seed is '0'; it must be a whole number"),
        (change(["rows", 0, "seed"], True), r"rows\[0\].seed is True; it must be a whole number"),
        (change(["rows", 0, "metrics", "test/acc"], "x"), r"metrics.test/acc is 'x'; it must be a number"),
        (change(["rows", 0, "role"], "judge"), "must be one of method, original, reference"),
        (change(["rows", 0, "extra"], 1), r"rows\[0\] has the unknown key 'extra'"),
        (change(["requests", 0], {"name": "x"}), r"requests\[0\] lacks rule, count, of, digest"),
        (change(["rows", 0, "details", "roc"], {"fpr": []}), r"details.roc lacks tpr"),
        (change(["rows", 0, "details", "roc", "tpr"], [1.0]), "roc has 22 fpr for 1 tpr"),
        (change(["rows", 0, "details", "margins", "test"], [1.0]), "margins.test has 1 counts for 5 edges"),
        (change(["rows", 0, "details", "per_class", 0, "class"], 3), r"per_class\[0\].class is 3"),
    ],
)
def test_what_is_no_report_is_refused(content, message, tmp_path):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Report.load(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read .*report.json"):
        Report.load(tmp_path)


def test_tensors_and_other_objects_are_refused():
    with pytest.raises(ConfigError, match="holds a complex"):
        Report("unlearn", "t", "", "", "", rows=[Row("m", "method", "r", 0, {"a": 1j})]).to_json()


def test_csv_has_a_line_per_model_and_no_formula():
    report = hostile()
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == len(report.rows)
    assert rows[0]["gap/avg"] == "1.0"
    assert rows[0]["stages_s"] == "12.0"
    assert not any(value.startswith(("=", "+", "@", "-")) for row in rows for value in row.values())
    assert rows[EVIL.index("=cmd()")]["method"] == "'=cmd()"


def test_csv_missing_metrics_are_empty():
    rows = [Row("a", "method", "r", 0, {"x": 1.0}), Row("b", "method", "r", 0, {"y": -2.0})]
    found = list(csv.DictReader(io.StringIO(Report("unlearn", "t", "", "", "", rows=rows).to_csv())))
    assert [(row["x"], row["y"]) for row in found] == [("1.0", ""), ("", "-2.0")]


def one(name, draw, created, gap=1.0, **changes):
    rows = [
        Row(name, "method", request(draw).name, 0, metrics(gap), [], details()),
        Row("original", "original", request(draw).name, 0, metrics(9.0)),
    ]
    given = {
        "goal": "untrain", "tier": "screen", "requests": [request(draw)], "rows": rows,
        "levels": {request(draw).name: {"gap/avg": 0.5}}, "config": f"method: {name}\n",
        "versions": {"torch": "2.10"}, "machine": "m",
    } | changes  # fmt: skip
    return Report("unlearn", "Run", created, **given)


def test_merge_joins_runs():
    merged = merge([one("A", 0, "2026-01-01"), one("B", 0, "2026-01-02"), one("A", 1, "2026-01-03")])
    assert merged.kind == "benchmark"
    assert [(row.method, row.request) for row in merged.rows if row.role == "method"] == [
        ("A", request(0).name), ("B", request(0).name), ("A", request(1).name),
    ]  # fmt: skip
    # The original of draw 0 stands in two reports with the same figures: once, and nothing to warn of.
    assert sum(row.role == "original" for row in merged.rows) == 2
    assert merged.warnings == []
    assert [item.name for item in merged.requests] == [request(0).name, request(1).name]
    assert set(merged.levels) == {request(0).name, request(1).name}
    assert merged.config == "method: A\n---\nmethod: B\n"
    assert merged.created == "2026-01-03"


def test_merge_of_one_is_itself():
    report = single()
    assert merge([report]) is report


def test_merge_newer_cell_counts_whatever_the_order():
    old, new = one("A", 0, "2026-01-01", 1.0), one("A", 0, "2026-01-02", 2.0)
    for reports in ([old, new], [new, old]):
        merged = merge(reports)
        assert [row.metrics["gap/avg"] for row in merged.rows if row.role == "method"] == [2.0]
        assert any("1 rows stood in several" in warning for warning in merged.warnings)


def test_merge_keeps_cells_of_other_settings_apart():
    other = one("A", 0, "2026-01-02", 2.0)
    other.rows[0].settings = "tuned"
    assert sum(row.role == "method" for row in merge([one("A", 0, "2026-01-01"), other]).rows) == 2


def test_merge_claims_no_more_than_the_weakest():
    merged = merge([one("A", 0, "1", tier="audit"), one("B", 0, "2", versions={"torch": "2.11"})])
    assert merged.tier == "screen"
    assert merged.versions == {"torch": "2.10 / 2.11"}
    assert any("labelled screen" in warning for warning in merged.warnings)
    assert any("different versions of torch" in warning for warning in merged.warnings)


def test_merge_refuses():
    with pytest.raises(ConfigError, match="no report to merge"):
        merge([])
    with pytest.raises(ConfigError, match="goals repair and untrain"):
        merge([one("A", 0, "1"), one("A", 0, "2", goal="repair")])
    other = one("B", 0, "2", requests=[Request(request(0).name, "r", 1, 2, "other digest")])
    with pytest.raises(ConfigError, match="stands for two sets of samples"):
        merge([one("A", 0, "1"), other])
