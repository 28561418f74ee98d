"""Folders of runs."""

import os

import pytest

from lightning_unlearn.cli.run_folder import RUN_VARIABLE, RunFolder
from lightning_unlearn.exceptions import ConfigError, RunError
from lightning_unlearn.files import lock_folder


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", RUN_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_numbers_go_on_behind_the_highest(tmp_path):
    assert str(RunFolder.take("fit").path) == "runs/fit/1"
    (tmp_path / "runs/fit/7").mkdir()
    (tmp_path / "runs/fit/notes").mkdir()
    assert str(RunFolder.take("fit").path) == "runs/fit/8"
    assert str(RunFolder.take("fit", name="a/b").path) == "runs/a/b/1"


@pytest.mark.parametrize("name", ["../x", "/x", ""])
def test_names_stay_below_runs(name, tmp_path):
    if name:
        with pytest.raises(ConfigError, match="below runs/"):
            RunFolder.take("fit", name=name)
    else:
        assert str(RunFolder.take("fit", name=name).path) == "runs/fit/1"


def test_a_failed_start_leaves_no_trace(tmp_path):
    folder = RunFolder.take("fit")
    folder.start("fit", {"data": {}}, {})
    folder.discard_if_empty()
    assert not (tmp_path / "runs").exists()


def test_a_run_with_results_and_the_users_own_folder_stay(tmp_path):
    folder = RunFolder.take("fit")
    folder.start("fit", {}, {})
    (folder.path / "metrics.csv").touch()
    folder.discard_if_empty()
    assert (folder.path / "config.yaml").is_file()
    (tmp_path / "mine").mkdir()
    mine = RunFolder.take("fit", output="mine")
    mine.start("fit", {}, {})
    mine.discard_if_empty()
    assert (tmp_path / "mine").is_dir()
    assert not list((tmp_path / "mine").iterdir())


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(ConfigError, match="full is not empty"):
        RunFolder.take("fit", output="full")
    RunFolder.take("fit", output="run").start("fit", {}, {})
    with pytest.raises(ConfigError, match="--resume run"):
        RunFolder.take("fit", output="run")
    with pytest.raises(ConfigError, match="another run by now"):
        RunFolder(tmp_path / "run").start("fit", {}, {})


def test_a_folder_that_a_run_works_in_is_in_use_and_not_to_be_emptied():
    RunFolder.take("fit", output="run").start("fit", {}, {})
    with lock_folder("run"), pytest.raises(RunError, match=f"run is in use by process {os.getpid()}. Wait until it ends"):
        RunFolder.take("fit", output="run")
    with pytest.raises(ConfigError, match="--resume run"):
        RunFolder.take("fit", output="run")


def test_a_resumed_run_must_be_the_same(tmp_path):
    config, record = {"trainer": {"max_epochs": 3, "lr": 1e-05}}, {"data": "abc"}
    RunFolder.take("fit", output="run").start("fit", config, record)
    run = RunFolder.take("fit", resume="run")
    run.check("fit", config, record)
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs was 3 and is now 4"):
        run.check("fit", {"trainer": {"max_epochs": 4, "lr": 1e-05}}, record)
    with pytest.raises(ConfigError, match="data was 'abc' and is now 'abd'"):
        run.check("fit", config, {"data": "abd"})
    with pytest.raises(ConfigError, match="no run of unlearn"):
        run.check("unlearn", config, record)
    with pytest.raises(ConfigError, match="no run that can be resumed"):
        RunFolder.take("fit", resume="elsewhere")


def test_other_ranks_use_the_first_ones_folder_and_write_nothing(monkeypatch):
    first = RunFolder.take("fit")
    monkeypatch.setenv(RUN_VARIABLE, str(first.path))
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = RunFolder.take("fit")
    assert other.path == first.path
    other.start("fit", {}, {})
    assert not list(first.path.iterdir())


def test_external_launchers_need_an_output_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="give --output"):
        RunFolder.take("fit")
    assert RunFolder.take("fit", output="run").first
