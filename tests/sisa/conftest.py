"""The smallest ensembles that say something: 70 digits, two hidden layers."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.loading import check_model, save_unlearned
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.sisa.store import settle_slices
from lightning_unlearn.stages import RetrainShards
from lightning_unlearn.trainer import UnlearningTrainer


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


class TheseKeys(ForgetRule):
    """Samples by key, those that are still there."""

    def __init__(self, keys):
        self.keys = set(keys)

    def select(self, samples, candidates, seed, class_names):
        return Selection(candidates[[samples.keys[i] in self.keys for i in candidates.tolist()]], [])

    def describe(self):
        return "these keys"


def without(dataset, keys):
    """The data set after the files of these samples were deleted."""
    kept = torch.tensor([key not in keys for key in dataset.train.keys])
    train = dataset.train
    rows = Samples(train.images[kept], train.targets[kept], [key for key in train.keys if key not in keys])
    return VisionData(dataset.name, rows, dataset.test, dataset.classes, dataset.mean, dataset.std)


class Dropping(nn.Module):
    """BatchNorm, whose statistics depend on the batches, and dropout, which draws in every step."""

    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))
        self.head = nn.Linear(144, num_classes)

    def forward(self, x):
        return self.head(self.body(x))


def make_model(**kwargs):
    arguments = {"network": "MLP", "network_args": {"hidden": [8, 8]}, "optimizer": sgd, "shards": 3, "slices": 2, **kwargs}
    return Sisa(num_classes=10, in_chans=1, image_size=8, **arguments)


def make_trainer(**kwargs):
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return UnlearningTrainer(**{"accelerator": "cpu", "devices": 1, **silent, **kwargs})


def fit(folder, data, epochs=3, trainer=None, **kwargs):
    """A trained ensemble in `folder/checkpoints`."""
    model = make_model(**kwargs)
    make_trainer(max_epochs=epochs, default_root_dir=str(folder), **(trainer or {})).fit(model, datamodule=data)
    return model


def delete(model, data, checkpoint, output, **kwargs):
    """A request without a report: what `UnlearningTrainer.unlearn` does, in the same order; the stage's result."""
    stage, fresh = RetrainShards(), make_trainer(**kwargs).fresh
    data.use_split_of(checkpoint)
    stage.place(fresh, str(checkpoint), str(output))
    check_model(model, data, str(checkpoint), [stage])
    [result] = run_chain(fresh, model, data, [stage])
    data.saved_split().save(Path(output) / "split.json")
    save_unlearned(Path(output) / "unlearned.ckpt", model, data)
    settle_slices(Path(output))
    return result


def checkpoints(folder):
    """Names of all checkpoints below a folder."""
    return {path.name for path in Path(folder).rglob("*.ckpt")}


def assert_equal(a, b):
    """Bit for bit."""
    other = b.state_dict()
    assert a.state_dict().keys() == other.keys()
    for name, value in a.state_dict().items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="session")
def small():
    return Digits(test_size=40, train_size=70)


@pytest.fixture(scope="session")
def make_data(small):
    def make(keys=None, dataset=None, **kwargs):
        rule = None if keys is None else TheseKeys(keys)
        return UnlearningDataModule(dataset or small, rule, **{"unseen": 10, "batch_size": 16, "num_workers": 0, **kwargs})

    return make


@pytest.fixture(scope="session")
def original(tmp_path_factory, make_data):
    """A trained ensemble, to be copied."""
    folder = tmp_path_factory.mktemp("original")
    fit(folder, make_data())
    return folder


@pytest.fixture
def copy(original, tmp_path):
    """The checkpoint of a trained ensemble, with its slices."""
    shutil.copytree(original, tmp_path / "a")
    return tmp_path / "a" / "checkpoints" / "last.ckpt"
