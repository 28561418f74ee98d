"""Fits: quiet ones, and ones that are stopped inside an epoch and go on bit for bit."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.training import describe, fit_quietly, quiet
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO


class Dropping(LightningModule):
    """A network with dropout and BatchNorm, momentum and a schedule: everything that a resumed run can lose."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10)
        )
        self.seen = []

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.index.tolist()))
        return F.cross_entropy(self(batch.input), batch.target)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(model, data, folder=None, resume=None, validate=False):
    callbacks = [SeedEachStep()]
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1))
    with quiet():
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=folder is not None,
            max_epochs=3,
            limit_val_batches=None if validate else 0,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
        )
        trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model


# The resumed runs of this test keep no checkpoints of their own.
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("validate", [False, True])
def test_a_run_resumed_at_any_step_ends_bit_identical(validate, make_data, tmp_path):
    """Three epochs of five steps; also where the checkpoint is the last one of an epoch."""
    seed_everything(3, verbose=False)
    start = Dropping()
    if validate:
        start.validation_step = lambda batch, batch_idx: None
    data = make_data(batch_size=64, augmentation=Augmentation(shift=1))
    whole = fit(copy.deepcopy(start), data, tmp_path, validate=validate)
    steps = len(whole.seen)
    assert steps == 15
    for step in range(1, steps):
        torch.rand(step)
        data = make_data(batch_size=64, augmentation=Augmentation(shift=1))
        again = fit(copy.deepcopy(start), data, None, tmp_path / f"step={step}.ckpt", validate)
        assert again.seen == whole.seen[step:], f"resumed at step {step}"
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items()), f"resumed at step {step}"


def test_without_its_seed_dropout_would_differ(make_data):
    """The test above can fail: without SeedEachStep two runs differ where random numbers were drawn before them."""
    seed_everything(3, verbose=False)
    start, outcomes = Dropping(), []
    for drawn in (0, 1):
        model = copy.deepcopy(start)
        torch.rand(drawn)
        with quiet():
            trainer = Trainer(
                accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                enable_checkpointing=False, max_epochs=1, limit_val_batches=0,
            )  # fmt: skip
            trainer.fit(model, datamodule=make_data())
        outcomes.append(model.network[1].weight.detach())
    assert not torch.equal(*outcomes)


def test_fit_quietly_says_and_writes_nothing(trained, make_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = make_data(view="both")
    before, weights = data.serving, trained.network.fc.weight.detach().clone()
    fit_quietly(trained, data, "retain", 1, {"accelerator": "cpu"})
    assert data.serving == before
    assert not torch.equal(trained.network.fc.weight, weights)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_quiet_puts_the_loggers_back():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet():
        assert logger.level == logging.WARNING
    assert logger.level == before
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert logger.level == before


def test_describe_tells_models_and_optimisers_apart(trained, trained_resnet):
    described = describe(trained)
    assert described["class"].endswith("Classifier")
    assert described != describe(trained_resnet)
    other = copy.deepcopy(trained)
    other.optimizer = lambda params: torch.optim.SGD(params, lr=0.2, momentum=0.9)
    assert describe(other) != described
    assert "0.2" in describe(other)["optimizer"]
