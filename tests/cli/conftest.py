"""A trained original on the embedded digits, made once through the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_unlearn.cli import main

REPOSITORY = Path(__file__).parents[2]
CONFIG = {
    "data": {
        "dataset": {"class_path": "Digits", "init_args": {"train_size": 600}},
        "unseen": 100,
        "batch_size": 64,
        "label_noise": {"class_path": "LabelNoise", "init_args": {"fraction": 0.2}},
    },
    "model": {
        "class_path": "Classifier",
        "init_args": {
            "network": "SmallCNN",
            "optimizer": {
                "class_path": "torch.optim.SGD",
                "init_args": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            },
        },
    },
    "trainer": {"accelerator": "cpu", "devices": 1},
}
STAGES = {"stages": [{"class_path": "FineTune", "init_args": {"max_epochs": 1, "cache": False}}]}


def write_configs(folder: Path) -> None:
    (folder / "base.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "method.yaml").write_text(yaml.safe_dump(STAGES))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with configs and `runs/fit/1`, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    write_configs(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", "-c", "base.yaml", "--trainer.max_epochs", "6"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    """A copy of the trained folder as the current directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Configs in the current directory, and no run."""
    write_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CHECKPOINT = "runs/fit/1/checkpoints/last.ckpt"
UNLEARN = [
    *("unlearn", "-c", "base.yaml", "-c", "method.yaml", "--checkpoint", CHECKPOINT, "--relearn_epochs", "0"),
    *("--data.forget", "RandomFraction", "--data.forget.fraction", "0.1"),
]


def start(*arguments: str, folder: Path) -> subprocess.Popen:
    """The command line as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    # Child processes of a test run under Lightning must not take themselves for ranks.
    for name in ("LOCAL_RANK", "PL_GLOBAL_SEED"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_unlearn", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen, word: str) -> None:
    """Read what a process says until a word comes."""
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"{word} did not come")
