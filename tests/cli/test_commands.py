"""The commands, from a config to what lies in the run's folder."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml

from lightning_unlearn.classifier import Classifier
from lightning_unlearn.cli import main
from lightning_unlearn.cli.lightning_cli import UnlearningCLI, trainer_commands
from lightning_unlearn.weights.checkpoint import read_weights
from tests.cli.conftest import CHECKPOINT, UNLEARN


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_fit_leaves_config_metrics_and_newest_checkpoint(work):
    run = work / "runs/fit/1"
    assert files(run) == {"config.yaml", "run.json", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/split.json"}
    with (run / "metrics.csv").open() as file:
        rows = [float(row["unseen/acc"]) for row in csv.DictReader(file) if row["unseen/acc"]]
    assert len(rows) == 6
    assert rows[-1] > 50
    assert Classifier.load(run / "checkpoints/last.ckpt").num_classes == 10
    assert not (work / "lightning_logs").exists()
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["epoch"] == 5
    assert state["hyper_parameters"]["in_chans"] == 1  # linked from the data
    split = json.loads((run / "checkpoints/split.json").read_text())
    assert (len(split["forget"]), len(split["retain"]), len(split["unseen"])) == (0, 500, 100)


def test_figures_of_the_last_epoch_are_said_where_no_line_of_an_epoch_did(empty, capsys):
    fit = ["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]
    assert main([*fit, "--trainer.enable_progress_bar", "true"]) == 0
    assert "\ntrain/loss " in capsys.readouterr().out
    assert main(fit) == 0
    out, err = capsys.readouterr()
    assert "epoch 1/1  train/loss " in err
    assert "train/loss" not in out
    assert "; 10 classes\n" in out


def test_what_unlearning_does_not_go_by_is_said(work, capsys):
    assert main([*UNLEARN, "--output", "plain"]) == 0
    said = capsys.readouterr().err
    assert "has no effect" not in said
    assert "of its" not in said
    assert main([*UNLEARN, "--data.unseen", "50", "--trainer.max_epochs=5", "--output", "typed"]) == 0
    said = capsys.readouterr().err
    assert "warning: --data.unseen has no effect: split.json beside the checkpoint says" in said
    assert "warning: --trainer.max_epochs has no effect: stages have lengths of their own" in said
    assert "max_steps" not in said


def test_unlearning_from_a_training_that_was_killed_is_warned_of(work, capsys):
    config = work / "runs/fit/1/config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 6", "max_epochs: 40"))
    assert main(UNLEARN) == 0
    assert (
        f"warning: {CHECKPOINT} is of a training that reached 6 of its 40 epochs. Where it was killed, finish it first: "
        "fit --resume runs/fit/1\n"
    ) in capsys.readouterr().err


def test_unlearn_then_evaluate_then_report_then_export(work, capsys):
    assert main([*UNLEARN, "--name", "first"]) == 0
    run = work / "runs/first/1"
    assert {"unlearned.ckpt", "split.json", "config.yaml", "report.json", "report.html", "report.csv"} <= files(run)
    report = json.loads((run / "report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["original", "method"]
    assert "RandomFraction" in report["config"]
    out = capsys.readouterr()
    assert "Forget acc" in out.out
    assert "runs/first/1/report.html" in out.out
    assert "litlogger" not in out.err
    assert "warning" not in out.err

    assert main(["evaluate", "--run", "runs/first/1", "--relearn_epochs", "0"]) == 0
    judged = json.loads((work / "runs/evaluate/1/report.json").read_text())
    assert [row["role"] for row in judged["rows"]] == ["original", "method"]
    for before, after in zip(report["rows"], judged["rows"], strict=True):
        assert before["metrics"]["forget/acc"] == after["metrics"]["forget/acc"]

    (run / "report.html").unlink()
    assert main(["report", "runs/first/1"]) == 0
    assert (run / "report.html").is_file()

    assert main(["export", "runs/first/1", "--output", "exported"]) == 0
    assert {"model.safetensors", "config.json", "README.md", "modeling.py"} == files(work / "exported")
    assert main(["export", "runs/first/1", "--output", "exported"]) == 2
    assert main(["export", "runs/first/1", "--output", "exported", "--overwrite"]) == 0

    capsys.readouterr()
    assert main(["export", "runs/first/1", "--output", "small", "--int8"]) == 0
    assert "model.int8.safetensors" in files(work / "small")
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Accuracy on forgotten samples")]
    # The full weights are those of the report.
    assert float(line.split()[-2]) == pytest.approx(report["rows"][1]["metrics"]["forget/acc"], abs=0.05)


def test_a_saved_config_gives_the_same_run_and_serves_other_commands(work):
    assert main([*UNLEARN, "--output", "a"]) == 0
    assert main(["unlearn", "-c", "a/config.yaml", "--output", "b"]) == 0
    assert (work / "a/config.yaml").read_text() == (work / "b/config.yaml").read_text()
    first, second = (read_weights(work / name / "unlearned.ckpt")[0] for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main(["test", "-c", "a/config.yaml", "--checkpoint", "a/unlearned.ckpt"]) == 0
    assert main(["fit", "-c", "a/config.yaml", "--trainer.max_epochs", "1", "--data.view", "retain"]) == 0
    # Another unlearning run may start from a fit's config.
    assert main(["unlearn", "-c", "runs/fit/1/config.yaml", *UNLEARN[3:]]) == 0


def test_a_reference_is_told_from_an_original(work, capsys):
    view = ["--data.forget", "RandomFraction", "--data.forget.fraction", "0.1", "--data.view", "retain"]
    assert main(["fit", "-c", "base.yaml", *view, "--trainer.max_epochs", "2"]) == 0
    split = json.loads((work / "runs/fit/2/checkpoints/split.json").read_text())
    assert (len(split["forget"]), len(split["retain"])) == (50, 450)
    assert main([*UNLEARN, "--references", "[runs/fit/2/checkpoints/last.ckpt]"]) == 0
    # One value does for a list of one.
    assert main([*UNLEARN, f"--references={CHECKPOINT}"]) == 2
    assert "is no reference" in capsys.readouterr().err


def test_validate_test_and_predict(work, capsys):
    for command in ("validate", "test", "predict"):
        assert main([command, "-c", "base.yaml", "--checkpoint", CHECKPOINT]) == 0
    out = capsys.readouterr().out
    assert "unseen/acc" in out
    assert "test/acc" in out
    with np.load(work / "runs/predict/1/outputs.npz") as outputs:
        assert outputs["retain/logits"].shape == (500, 10)
        accuracy = float((outputs["test/logits"].argmax(1) == outputs["test/targets"]).mean() * 100)
    with (work / "runs/test/1/metrics.csv").open() as file:
        assert float(next(csv.DictReader(file))["test/acc"]) == pytest.approx(accuracy)


def test_benchmark_runs_cells_once(work, capsys):
    call = ["benchmark", "-c", "base.yaml", "--trainer.max_epochs", "2", "--methods", "method.yaml", *UNLEARN[7:]]
    call += ["--references", "1", "--name", "small", "--bank", "bank"]
    assert main(call) == 0
    cells = {path: path.stat().st_mtime_ns for path in (work / "runs/small/cells").iterdir()}
    assert main(call) == 0
    assert cells == {path: path.stat().st_mtime_ns for path in (work / "runs/small/cells").iterdir()}
    assert "method" in capsys.readouterr().out
    assert json.loads((work / "runs/small/report.json").read_text())["config"]


def test_names_of_people_stay_out_of_the_report(work):
    (work / "who.yaml").write_text(
        yaml.safe_dump({"data": {"forget": {"class_path": "ByAttribute", "init_args": {"column": "owner", "values": ["Ada"]}}}})
    )
    from lightning_unlearn.cli.configs import read_config
    from lightning_unlearn.cli.redact import without_names

    shown = without_names(read_config(work / "who.yaml"))
    assert "Ada" not in shown
    assert "1 values" in shown


def test_the_table_of_commands_is_that_of_the_trainer():
    from lightning_unlearn.cli.commands import COMMANDS, PLAIN

    assert set(COMMANDS) == set(trainer_commands()) | set(PLAIN)
    for arguments in trainer_commands().values():
        assert {"data", "model", "trainer", "seed_everything"} <= arguments
        # Their stored class and settings would silently beat the command line.
        assert "ckpt_path" not in arguments


def test_a_checkpoint_names_no_class_to_import():
    assert "torch" not in (UnlearningCLI._parse_ckpt_path.__code__.co_names)
    assert UnlearningCLI._parse_ckpt_path.__code__.co_names == ()


def test_the_users_own_classes_are_found_in_the_current_directory(work):
    (work / "mine.py").write_text(
        "from lightning_unlearn.stages import FineTune\n\nclass Gentle(FineTune):\n    '''Fine-tuning, gently.'''\n"
    )
    (work / "own.yaml").write_text(yaml.safe_dump({"stages": [{"class_path": "mine.Gentle", "init_args": {"cache": False}}]}))
    assert main([*UNLEARN[:3], "-c", "own.yaml", *UNLEARN[5:], "--output", "own"]) == 0
    assert "mine.Gentle" in (work / "own/config.yaml").read_text()
