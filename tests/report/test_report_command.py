"""Reports built again and joined from run folders."""

import pytest
from report_samples import benchmark, single

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.command import rebuild
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report


def test_single_is_written_anew_where_it_lies(tmp_path):
    save_report(single(), tmp_path)
    page = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.csv").unlink()
    assert rebuild([tmp_path]) == single()
    assert (tmp_path / "report.html").read_bytes() == page
    assert (tmp_path / "report.csv").exists()


def test_several_are_joined_into_the_output(tmp_path):
    first, second = single(), single()
    second.rows[0].method = "Other"
    save_report(first, tmp_path / "runs/x/0")
    save_report(second, tmp_path / "runs/x/1")
    before = (tmp_path / "runs/x/0/report.html").read_bytes()
    joined = rebuild([tmp_path / "runs/x/0", tmp_path / "runs/x/1/report.json"], tmp_path / "out")
    assert joined.kind == "benchmark"
    assert [row.method for row in joined.rows if row.role == "method"] == ["Mine", "Other"]
    assert Report.load(tmp_path / "out") == joined
    assert (tmp_path / "runs/x/0/report.html").read_bytes() == before
    # The same folder twice, once as its parent, is one report.
    assert rebuild([tmp_path / "runs", tmp_path / "runs/x/0"]) == joined


def test_without_output_a_join_writes_nothing(tmp_path):
    save_report(single(), tmp_path / "a")
    save_report(benchmark(), tmp_path / "b")
    before = sorted(tmp_path.rglob("*"))
    rebuild([tmp_path / "a", tmp_path / "b"])
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_folders(tmp_path):
    with pytest.raises(ConfigError, match="No run folder was given"):
        rebuild([])
    with pytest.raises(ConfigError, match=r"holds no report.json. Give the folder of a run"):
        rebuild([tmp_path])
    with pytest.raises(ConfigError, match=r"missing holds no report\.json"):
        rebuild([tmp_path / "missing"])
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ConfigError, match="broken JSON"):
        rebuild([tmp_path])
    assert (tmp_path / "report.json").read_text() == "{"
