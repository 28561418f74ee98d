"""What the tests share: small data, one trained network per session, and Trainers that say nothing."""

import copy
import os
from dataclasses import replace

import pytest
import torch
from helpers import untrained

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.training import fit_quietly

TENTH = RandomFraction(0.1)


class Forbidden:
    """Images of a test set that nothing may read."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        raise AssertionError("a test image was read")


@pytest.fixture(autouse=True)
def _own_seed():
    """Seeds that a test or a fixture sets end with the test; every test begins without one."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session")
def digits():
    """300 training and 100 test digits."""
    return Digits(test_size=100, train_size=300)


@pytest.fixture(scope="session")
def spied(digits):
    """The same, with test images that raise when they are read."""
    test = replace(digits.test, images=Forbidden(digits.test.images))
    return VisionData("digits", digits.train, test, digits.classes, digits.mean, digits.std)


@pytest.fixture
def make_data(digits):
    """A DataModule on the digits; 10 % are forgotten unless a rule is given."""

    def make(dataset=None, forget=TENTH, batch_size=32, **kwargs):
        return UnlearningDataModule(dataset or digits, forget, batch_size=batch_size, num_workers=0, **kwargs)

    return make


@pytest.fixture
def make_trainer():
    def make(**kwargs):
        return UnlearningTrainer(**{"accelerator": "cpu", "logger": False, "enable_progress_bar": False, **kwargs})

    return make


@pytest.fixture
def fresh(make_trainer):
    """Makes the Trainer of one stage."""
    return make_trainer().fresh


@pytest.fixture(scope="session")
def _trained_models(digits):
    torch.manual_seed(0)
    models = {}
    for name, epochs in (("SmallCNN", 6), ("ResNet", 4)):
        model = untrained(name)
        data = UnlearningDataModule(digits, RandomFraction(0.1), batch_size=32, num_workers=0, seed=0)
        fit_quietly(model, data, "train", epochs, {"accelerator": "cpu"})
        models[name] = model.cpu().eval()
    return models


@pytest.fixture
def trained(_trained_models):
    """A copy of the trained SmallCNN, of its own for every test."""
    return copy.deepcopy(_trained_models["SmallCNN"])


@pytest.fixture
def trained_resnet(_trained_models):
    """A copy of the trained ResNet, which has BatchNorm."""
    return copy.deepcopy(_trained_models["ResNet"])


@pytest.fixture(scope="session")
def _memorising(digits):
    torch.manual_seed(1)
    data = UnlearningDataModule(
        digits, RandomFraction(0.2), unseen=100, batch_size=32, label_noise=LabelNoise(0.3), num_workers=0, seed=1
    )
    model = untrained("SmallCNN")
    fit_quietly(model, data, "train", 60, {"accelerator": "cpu"})
    return model.cpu().eval(), data


@pytest.fixture
def memorising(_memorising):
    """A model that knows wrong labels by heart, and its data."""
    model, data = _memorising
    return copy.deepcopy(model), data
