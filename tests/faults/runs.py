"""Small runs that tests interrupt: `python runs.py unlearn|fit FOLDER [DEVICES]` begins one, or goes on with it."""

import json
import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.stages import FineTune, MaskLearning, NormDecay
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.weights.checkpoint import save_weights

# What the last `unlearn` of a folder ran, one stage a line.
STAGES_RUN = "stages_run.txt"


class Network(nn.Module):
    """Two convolutions and a head, with dropout: a resumed run must draw what an undisturbed one draws."""

    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(in_chans, 8, 3, 1, 1), nn.ReLU(), nn.Dropout(0.2))
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, num_classes))

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(x)))


class Recorder(Callback):
    """Writes down which stages run."""

    def __init__(self, path: str):
        self.path = path

    def on_fit_start(self, trainer, pl_module):
        if trainer.is_global_zero:
            with open(self.path, "a") as file:
                file.write(f"{type(pl_module).__name__}\n")


def sgd(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def adam(params):
    return torch.optim.Adam(params, lr=2e-3)


def make_data():
    return UnlearningDataModule(
        Digits(test_size=100, train_size=300), RandomFraction(0.1), unseen=40, batch_size=32, num_workers=0, seed=0
    )


def make_model():
    torch.manual_seed(0)
    return Classifier(Network(), num_classes=10, in_chans=1, optimizer=sgd).eval()


def make_stages(epochs=8):
    return [
        FineTune(max_epochs=epochs // 2, optimizer=sgd, schedule="one_cycle"),
        MaskLearning(max_epochs=3, batch_size=4, penalty=1e-4, optimizer=adam),
        NormDecay(0.5),
        FineTune(max_epochs=epochs, optimizer=sgd, schedule="cosine"),
    ]


def make_trainer(folder=None, devices=1, **kwargs):
    callbacks = [] if folder is None else [Recorder(Path(folder) / STAGES_RUN)]
    ranks = {"strategy": "ddp"} if devices > 1 else {}
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return UnlearningTrainer(**{"accelerator": "cpu", "devices": devices, "callbacks": callbacks, **ranks, **silent, **kwargs})


def unlearn(folder, devices=1, epochs=8):
    """The method of four stages, into `folder`."""
    folder = Path(folder)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAGES_RUN).unlink(missing_ok=True)
    (folder / f"pid-{os.environ.get('LOCAL_RANK', '0')}").write_text(str(os.getpid()))
    trainer = make_trainer(folder, devices)
    return trainer.unlearn(make_model(), make_data(), make_stages(epochs), output=str(folder), relearn_epochs=0)


def fit(folder):
    """Four epochs of training with a checkpoint every three steps and every epoch; ends with `final.ckpt`."""
    folder = Path(folder)
    keep = {"dirpath": folder / "checkpoints", "filename": "last", "enable_version_counter": False}
    # Of two ModelCheckpoints Lightning wants different settings; both write the newest state to the same file.
    callbacks = [
        SeedEachStep(),
        ModelCheckpoint(every_n_train_steps=3, **keep),
        ModelCheckpoint(every_n_epochs=1, save_on_train_epoch_end=True, **keep),
    ]
    trainer = make_trainer(max_epochs=6, callbacks=callbacks, limit_val_batches=0)
    model, data = make_model().train(), make_data()
    newest = folder / "checkpoints" / "last.ckpt"
    trainer.fit(model, datamodule=data, ckpt_path=str(newest) if newest.exists() else None)
    save_weights(folder / "final.ckpt", model.state_dict(), {})


def figures(folder):
    """What a report says, without what a clock or the memory says."""
    report = json.loads((Path(folder) / "report.json").read_text())
    for row in report["rows"]:
        row["metrics"] = {k: v for k, v in row["metrics"].items() if not k.startswith(("time/", "memory/"))}
        for stage in row.get("stages", []):
            stage["seconds"] = 0.0
    return {key: report[key] for key in ("rows", "levels", "warnings")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "fit":
        fit(sys.argv[2])
    else:
        unlearn(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1, int(sys.argv[4]) if len(sys.argv) > 4 else 8)
