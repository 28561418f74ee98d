"""Two processes started by one command line agree on the run's folder."""

import json

import pytest

from tests.cli.conftest import CHECKPOINT, UNLEARN, start

TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.mark.ddp
def test_fit_and_unlearn_on_two_ranks(work):
    process = start("fit", "-c", "base.yaml", "--trainer.max_epochs", "2", *TWO, folder=work)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert out.count("fit: runs/fit/2") == 1
    assert sorted(path.name for path in (work / "runs/fit").iterdir()) == ["1", "2"]
    assert (work / "runs/fit/2/checkpoints/last.ckpt").is_file()

    process = start(*UNLEARN, *TWO, folder=work)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert [path.name for path in (work / "runs/unlearn").iterdir()] == ["1"]
    report = json.loads((work / "runs/unlearn/1/report.json").read_text())
    assert report["requests"][0]["count"] == 50
    assert (work / "runs/unlearn/1/unlearned.ckpt").is_file()
    assert CHECKPOINT in (work / "runs/unlearn/1/config.yaml").read_text()


@pytest.mark.ddp
def test_a_benchmark_on_two_ranks_prints_once(empty):
    methods = ("--methods", "[gradient_ascent]", "--references", "1", "--relearn_epochs", "0", "--trainer.max_epochs", "1")
    forget = ("--data.forget", "RandomFraction", "--data.forget.fraction", "0.1")
    process = start("benchmark", "-c", "base.yaml", *methods, *forget, *TWO, folder=empty)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert out.count("report: runs/benchmark/report.html") == 1


@pytest.mark.ddp
def test_fewer_unseen_samples_than_ranks_are_refused_before_the_first_step(empty):
    process = start("fit", "-c", "base.yaml", "--trainer.max_epochs", "1", "--data.unseen", "1", *TWO, folder=empty)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error
    assert "error: There are 1 unseen samples for 2 ranks; needed: at least one per rank, or none." in error
    assert "epoch 1" not in error
    assert not list(empty.rglob("*.ckpt"))
