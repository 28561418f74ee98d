"""Two processes started by one command line agree on the run's folder."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CHECKPOINT, UNLEARN, start, wait_for

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


@pytest.mark.ddp
def test_sigterm_ends_both_ranks(empty):
    """Lightning's own handler hangs three times in five: its broadcast meets the other rank in the gradients' reduction."""
    process = start("fit", "-c", "base.yaml", "--trainer.max_epochs", "100000", *TWO, folder=empty)
    try:
        wait_for(process, "epoch 2/100000")
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        ranks = [pid for pid in children if b"lightning_unlearn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 143, error
    assert len(ranks) == 1
    limit = time.monotonic() + 30
    while Path(f"/proc/{ranks[0]}").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    assert not Path(f"/proc/{ranks[0]}").exists()
