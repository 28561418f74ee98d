"""Runs that were killed, interrupted or started twice."""

import signal
import time

import pytest
import torch
import yaml

from lightning_unlearn.cli import main
from lightning_unlearn.cli.fitting import RunLogger
from lightning_unlearn.cli.lightning_cli import UnlearningCLI
from lightning_unlearn.weights.checkpoint import read_weights
from tests.cli.conftest import CHECKPOINT, UNLEARN, start, wait_for

FIT = ["fit", "-c", "base.yaml", "--trainer.max_epochs", "4"]


@pytest.fixture(autouse=True)
def _one_thread():
    """As many threads as the processes that are started: sums of floats depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_state(first, second):
    first, second = (torch.load(path, weights_only=True) for path in (first, second))
    assert first["global_step"] == second["global_step"]
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())
    for one, other in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        for key, state in one["state"].items():
            assert torch.equal(state["momentum_buffer"], other["state"][key]["momentum_buffer"])


@pytest.mark.faults
def test_a_killed_fit_goes_on_bit_for_bit(empty, capsys):
    assert main([*FIT, "--output", "whole"]) == 0
    process = start(*FIT, "--output", "killed", folder=empty)
    wait_for(process, "epoch 2/4")
    process.kill()
    process.communicate()
    assert main(["fit", "--resume", "killed", "--trainer.max_epochs", "5"]) == 2
    assert "trainer.max_epochs was 4 and is now 5" in capsys.readouterr().err
    assert main(["fit", "--resume", "killed"]) == 0
    same_state("whole/checkpoints/last.ckpt", "killed/checkpoints/last.ckpt")
    assert (empty / "whole/metrics.csv").read_bytes() == (empty / "killed/metrics.csv").read_bytes()
    assert main(["fit", "--resume", "killed"]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.faults
def test_a_killed_unlearning_goes_on_at_its_unfinished_stage(work, capsys):
    stage = {"class_path": "FineTune", "init_args": {"max_epochs": 1, "cache": False}}
    long = {"class_path": "FineTune", "init_args": {"max_epochs": 40, "max_steps": 150, "cache": False}}
    (work / "method.yaml").write_text(yaml.safe_dump({"stages": [stage, long]}))
    process = start(*UNLEARN, "--output", "killed", folder=work)
    end = time.monotonic() + 120
    while not (work / "killed/stage0.ckpt").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (work / "killed/unlearned.ckpt").exists()
    first = (work / "killed/stage0.ckpt").stat().st_mtime_ns
    assert main([*UNLEARN, "--output", "killed"]) == 2  # nothing is written over
    assert main(["unlearn", "--resume", "killed", "--data.forget.fraction", "0.2"]) == 2
    assert "init_args.fraction was 0.1 and is now 0.2" in capsys.readouterr().err
    assert (work / "killed/stage0.ckpt").stat().st_mtime_ns == first
    assert main(["unlearn", "--resume", "killed"]) == 0
    assert main([*UNLEARN, "--output", "whole"]) == 0
    one, other = (read_weights(work / name / "unlearned.ckpt")[0] for name in ("killed", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    capsys.readouterr()
    # Left by a run that is killed after its last file.
    (work / "killed/stage0.ckpt").touch()
    (work / "killed/stage0.json").touch()
    assert main(["unlearn", "--resume", "killed"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert not list((work / "killed").glob("stage*"))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("left", [24, 28, 32])
def test_a_fit_is_finished_when_its_last_epoch_is(empty, capsys, left):
    """Checkpoints of inside an epoch, too: after the last one that it left, a training of 4 epochs of 8 steps was killed."""
    keeper = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    keeper["init_args"] = {"every_n_train_steps": 4, "save_top_k": -1, "filename": "{step}"}
    (empty / "often.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [keeper]}}))
    assert main([*FIT, "-c", "often.yaml", "--output", "run"]) == 0
    kept = empty / "run/checkpoints"
    (kept / "last.ckpt").rename(empty / "whole.ckpt")
    for path in kept.glob("step=*.ckpt"):
        if int(path.stem.removeprefix("step=")) > left:
            path.unlink()
    capsys.readouterr()
    assert main(["fit", "--resume", "run"]) == 0
    assert "is finished" not in capsys.readouterr().out
    same_state(kept / "last.ckpt", empty / "whole.ckpt")
    assert main(["fit", "--resume", "run"]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("left", "kept", "lost"),
    [
        (b"", [], "it has no whole line"),
        (b"epoch,st", [], "it has no whole line"),
        (b"epoch,step,loss\r\n0,7,1.5\r\n1,1", ["0,7,1.5"], "1 of its 2 rows"),
        (b"epoch,step,loss\r\n0,7,1.5\r\n1,12,0.2", ["0,7,1.5"], "1 of its 2 rows"),
        (b"epoch,step,loss\r\n\0\0\0\xff\r\n1,15,1.0\r\n2,23,0.5\r\n", ["1,15,1.0"], "1 of its 3 rows"),
        (b"\0\0\0\0\r\n1,15,1.0\r\n", [], "1 of its 1 rows"),
        (b"epoch,step,loss\r\n0,7,1.5\r\n", ["0,7,1.5"], None),
    ],
)
def test_what_cannot_be_read_of_a_log_stops_no_run(tmp_path, caplog, left, kept, lost):
    file = tmp_path / "metrics.csv"
    file.write_bytes(left)
    with caplog.at_level("INFO", "lightning_unlearn"):
        logger = RunLogger(tmp_path, kept_steps=16)
    logger.log_metrics({"epoch": 2, "loss": 0.25}, step=23)
    logger.save()
    header, *rows = file.read_text().splitlines()
    assert sorted(header.split(",")) == ["epoch", "loss", "step"]
    assert rows[:-1] == kept
    assert [record.getMessage() for record in caplog.records] == [
        f"note: {file} is damaged, so what cannot be read of it is left out ({lost})."
    ] * (lost is not None)


def test_changed_data_or_weights_are_refused(work, capsys, monkeypatch):
    from lightning_unlearn.cli import verbs

    def stopped(job):
        job.begin(job.arguments["checkpoint"])
        (work / "run/stage0.ckpt").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(verbs.VERBS, "unlearn", stopped)
        assert main([*UNLEARN, "--output", "run"]) == 130
    assert "--resume run" in capsys.readouterr().err
    checkpoint = work / CHECKPOINT
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["network.fc.bias"] += 1
    torch.save(state, checkpoint)
    assert main(["unlearn", "--resume", "run"]) == 2
    assert "checkpoint was" in capsys.readouterr().err
    split = (work / "runs/fit/1/checkpoints/split.json").read_text()
    (work / "runs/fit/1/checkpoints/split.json").write_text(
        split.replace("unseen", "removed!").replace('removed"', 'unseen"').replace("removed!", "removed")
    )
    assert main(["unlearn", "--resume", "run"]) == 2
    assert "cannot be resumed: unseen was" in capsys.readouterr().err


def test_a_run_that_is_stopped_before_it_has_anything_says_so(work, capsys, monkeypatch):
    from lightning_unlearn.cli import verbs

    def stopped(job):
        job.begin(job.arguments["checkpoint"])
        raise KeyboardInterrupt

    monkeypatch.setitem(verbs.VERBS, "unlearn", stopped)
    (work / "there").mkdir()
    for output in ("run", "there"):
        assert main([*UNLEARN, "--output", output]) == 130
        error = capsys.readouterr().err
        assert error == (
            "warning: stopped before there was anything to keep: nothing is left of this run. The same command begins anew.\n"
        )
    assert not (work / "run").exists()
    assert not list((work / "there").iterdir())

    # While data are read.
    def stopped_early(cli):
        raise KeyboardInterrupt

    monkeypatch.setattr(UnlearningCLI, "instantiate_trainer", stopped_early)
    assert main(UNLEARN) == 130
    assert "nothing is left of this run" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_signals(empty, number, code):
    process = start("fit", "-c", "base.yaml", "--trainer.max_epochs", "10000", folder=empty)
    wait_for(process, "epoch 2/10000")
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "go on with: lightning-unlearn fit --resume runs/fit/1" in error
    assert "Traceback" not in error


def test_two_processes_in_one_folder(empty, capsys):
    process = start("fit", "-c", "base.yaml", "--trainer.max_epochs", "10000", folder=empty)
    wait_for(process, "epoch 1/10000")
    try:
        assert main(["fit", "--resume", "runs/fit/1"]) == 2
        assert f"in use by process {process.pid}" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


def test_a_stopped_benchmark_says_that_it_can_go_on(empty):
    forget = ("--data.forget", "RandomFraction", "--data.forget.fraction", "0.1")
    process = start(
        "benchmark", "-c", "base.yaml", *forget, "--methods", "[gradient_ascent]", "--trainer.max_epochs", "10000", folder=empty
    )
    try:
        wait_for(process, "training a reference")
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 143
    assert "stopped; what is finished is kept, and the same command goes on with it." in error
    assert "Traceback" not in error
