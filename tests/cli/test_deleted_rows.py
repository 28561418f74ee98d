"""Requests, one after another, on arrays from which what was forgotten is deleted."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_unlearn.cli import main
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.saved_split import SavedSplit

QUIET = ("--relearn_epochs", "0")
CONFIG = {
    "data": {
        "dataset": {"class_path": "Arrays", "init_args": {"train": "train.npz", "test": "test.npz"}},
        "unseen": 40,
        "batch_size": 64,
    },
    "model": {"class_path": "Classifier", "init_args": {"network": "MLP", "network_args": {"hidden": [16]}}},
    "trainer": {"accelerator": "cpu", "devices": 1},
    "stages": [{"class_path": "FineTune", "init_args": {"max_epochs": 1, "cache": False}}],
}


def write(kept):
    """The training rows of these numbers, under names that stay."""
    digits = Digits(test_size=100, train_size=300)
    images, labels = digits.train.images[:, 0].numpy().copy(), digits.train.targets.numpy()
    images[:20] |= 0xF0  # bright ones, so that measured means move with them
    keys = np.array([f"row {i:03d}" for i in range(300)])
    np.savez("train.npz", images=images[kept], labels=labels[kept], keys=keys[kept])
    np.savez("test.npz", images=digits.test.images[:, 0].numpy(), labels=digits.test.targets.numpy())


def asked(numbers):
    Path("request.txt").write_text("\n".join(f"row {i:03d}" for i in numbers))
    return ["--data.forget", "ListedSamples", "--data.forget.path", "request.txt"]


@pytest.fixture
def forgotten(tmp_path, monkeypatch, capsys):
    """Numbers of the rows that `runs/x/1` forgot, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write(np.arange(300))
    fit = {name: part for name, part in CONFIG.items() if name != "stages"}
    for name, config in (("fit", fit), ("all", CONFIG)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "-c", "fit.yaml", "--trainer.max_epochs", "2"]) == 0
    split = SavedSplit.load("runs/fit/1/checkpoints/split.json")
    rows = [i for i in range(20) if f"row {i:03d}" in split.retain][:10]
    call = ["unlearn", "-c", "all.yaml", "--checkpoint", "runs/fit/1", "--name", "x", *QUIET]
    assert main([*call, *asked(rows)]) == 0
    return rows


def without(rows):
    write(np.setdiff1d(np.arange(300), rows))


def test_the_input_stays_that_of_the_training(forgotten, capsys):
    def inputs():
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("input: ")]

    [first] = set(inputs())
    without(forgotten)
    assert main(["unlearn", "--run", "runs/x/1", *QUIET, *asked([60, 61])]) == 0
    assert main(["evaluate", "--run", "runs/x/2", *QUIET]) == 0
    assert main(["predict", "-c", "fit.yaml", "--checkpoint", "runs/x/2"]) == 0
    assert inputs() == [first] * 3
    assert main(["export", "runs/x/2", "--output", "exported"]) == 0
    exported = json.loads(Path("exported/config.json").read_text())["pretrained_cfg"]
    split = SavedSplit.load("runs/fit/1/checkpoints/split.json")
    assert (exported["mean"], exported["std"]) == (split.mean, split.std)
    # The data alone would say something else.
    assert main(["fit", "-c", "fit.yaml", "--trainer.max_epochs", "1"]) == 0
    assert inputs() != [first]
    assert main(["evaluate", "--run", "runs/x/2", *QUIET, "--data.dataset.mean", "0.9"]) == 2
    assert "Leave mean out" in capsys.readouterr().err


def test_a_request_stays_whole_where_half_of_its_files_are_gone(forgotten):
    assert main(["evaluate", "--run", "runs/x/1", *QUIET]) == 0
    without(forgotten[:5])
    assert main(["evaluate", "--run", "runs/x/1", *QUIET]) == 0
    whole, half = (json.loads(Path(f"runs/evaluate/{i}/report.json").read_text()) for i in (1, 2))
    assert half["requests"] == [{**whole["requests"][0], "gone": 5}]
    assert (half["requests"][0]["count"], half["requests"][0]["of"]) == (10, 260)
    said = [warning for warning in half["warnings"] if warning not in whole["warnings"]]
    assert len(said) == 1
    assert said[0].startswith("5 of the 10 forgotten samples are no longer in the data")
    assert not any("forgotten before" in warning for warning in half["warnings"])
    without(forgotten)
    assert main(["evaluate", "--run", "runs/x/1", *QUIET]) == 0
    rest = json.loads(Path("runs/evaluate/3/report.json").read_text())
    assert rest["requests"][0] | {"digest": whole["requests"][0]["digest"], "gone": 10} == rest["requests"][0]
    assert "None of the 10 forgotten samples" in rest["warnings"][0]
    assert not any("of the 10 forgotten samples are no longer" in warning for warning in rest["warnings"])
