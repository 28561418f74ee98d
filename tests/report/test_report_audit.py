"""Audits in the page, the terminal, JSON and CSV."""

import csv
import io

import pytest
from audit_samples import STRATA, audit, audited, hostile_audit
from report_samples import benchmark
from rich.cells import cell_len
from test_report_html import Page

from lightning_unlearn.report.audit_schema import WHOLE
from lightning_unlearn.report.audit_wording import audit_summary
from lightning_unlearn.report.html import render
from lightning_unlearn.report.merging import merge
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.table import grids, show


def text(report):
    return Page(render(report)).text


@pytest.mark.parametrize(("unchecked", "words"), [(1, "One control held; the other"), (2, "No control could be checked.")])
def test_controls_that_could_not_be_checked_are_not_said_to_hold(unchecked, words):
    found = audit()
    found.unchecked = unchecked
    page = text(audited(found))
    assert words in page
    assert "The controls held." not in page


def test_the_page_shows_zero_ceiling_verdicts_and_controls():
    words = text(audited())
    for wanted in (
        "Controls",
        "The controls held.",
        "held-out references (zero)",
        "original (ceiling)",
        "distinguishable from retraining (p = 0.0015; rank AUC 0.720, zero 0.552)",
        "0.720 (0.700 to 0.740)",
        "audit: per-sample attacks over many models",
        "is no proof of forgetting",
        "0.720*",
    ):
        assert wanted in words, wanted
    assert "screening" not in words
    assert all(f"{stratum} (120)" in words for stratum in STRATA)


def test_the_smallest_rank_auc_leads():
    words = text(audited())
    assert "Lowest here, on one forget set: imitate, with a per-sample rank AUC of 0.720, where two groups" in words
    assert "has the smallest" not in words
    assert words.index("imitate") < words.index("fine_tune")
    assert "2 of 2 methods are distinguishable" in words


def test_the_smallest_is_called_so_on_several_forget_sets_where_intervals_are_apart():
    near, bare, alone = audit("class 2"), audit("class 3"), audit("class 4")
    near.of()[2].metrics |= {"rank_auc/low": 0.73}
    for line in bare.of():
        del line.metrics["rank_auc/low"], line.metrics["rank_auc/high"]
    alone.lines = [line for line in alone.lines if line.method != "fine_tune"]
    said = audit_summary(audited(audit("class 1"), near, bare, alone))
    assert said[0].startswith("On class 1: imitate has the smallest per-sample rank AUC, 0.720, where")
    for words in said[1:3]:
        assert "Lowest here: imitate, with a per-sample rank AUC of 0.720, not told from that of fine_tune, where" in words
    assert said[3].startswith("On class 4: imitate has a per-sample rank AUC of 0.720, where")
    uncorrected = "not corrected for the number of methods and forget sets"
    assert all(uncorrected in words for words in said)
    assert uncorrected not in audit_summary(audited(alone))[0]
    assert "once for all forgotten samples and once for the strata together)" in audit_summary(audited(alone))[0]


def test_figures_stand_against_their_null():
    page = render(audited())
    assert page.count("<svg") == 6
    for label in ("two-sided rank AUC of a sample", "KLoM of a sample", "ROC curves of RMIA on logarithmic axes"):
        assert label in page
    assert "held-out references (zero)" in page


def test_a_void_audit_says_so_first():
    report = audited(audit(void=["The originals are not told from references."]))
    words = text(report)
    assert "void. The originals are not told from references." in words
    assert "This audit is void" in words
    assert "has the smallest" not in words
    out = io.StringIO()
    show(report, out)
    assert "warning: The originals are not told from references." in out.getvalue()


def test_exposed_samples_are_named_and_the_page_says_that_it_names_them():
    words = text(audited())
    assert "0f3a#2" in words
    assert "share it with those alone who may know them" in words
    assert "The samples themselves are not part" not in words


def test_hostile_names_stay_text():
    page = render(hostile_audit())
    Page(page)
    assert "<script" not in page
    assert "<img" not in page
    assert "onerror=alert(1)&gt;" in page


def test_several_forget_sets_have_headings_of_their_own():
    words = text(audited(audit("random 10 %"), audit("class 2")))
    assert "Controls: random 10 %" in words
    assert "Controls: class 2" in words


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("report", [audited(), hostile_audit()])
def test_the_terminal_table_fits_and_keeps_what_matters(report, width):
    (grid,) = grids(report, width)
    assert grid.head[:2] == ["Group", "Rank AUC"]
    assert [cells[1] for cells in grid.rows] == ["0.720", "0.837", "0.556", "0.839"]
    sizes = [max(cell_len(cell) for cell in column) for column in zip(grid.head, *grid.rows, strict=True)]
    assert sum(sizes) + 2 * (len(sizes) - 1) <= width


def test_the_terminal_says_the_verdicts():
    out = io.StringIO()
    show(audited(), out)
    assert "imitate: distinguishable from retraining (p = 0.0015" in out.getvalue()


def test_json_survives(tmp_path):
    for report in (audited(), hostile_audit()):
        (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
        assert Report.load(tmp_path) == report


def test_csv_has_a_line_per_group_and_stratum():
    rows = list(csv.DictReader(io.StringIO(audited().to_csv())))
    assert len(rows) == 4 * len(STRATA)
    mine = next(row for row in rows if row["method"] == "imitate" and row["stratum"] == WHOLE)
    assert (mine["role"], float(mine["rank_auc"]), float(mine["cost/share"])) == ("method", 0.72, 0.27)
    assert mine["notes"].startswith("distinguishable")
    assert "stratum" not in benchmark().to_csv().splitlines()[0]


def test_audits_are_merged_with_other_reports():
    assert merge([audited(), audited(audit("class 2"))]).kind == "audit"
    both = merge([audited(), benchmark()])
    assert both.kind == "benchmark"
    assert "held-out references (zero)" in text(both)
