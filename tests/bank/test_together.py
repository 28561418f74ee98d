"""Training many classifiers at once: each becomes what it becomes alone."""

import copy

import pytest
import torch
from helpers import sgd, untrained
from lightning.pytorch import LightningModule, seed_everything
from torch import nn

from lightning_unlearn.bank.together import Way, find_way, fit_together
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.functional.ensemble import valid_ways
from lightning_unlearn.training import fit_quietly

SEEDS = (4, 1, 12)
CPU = {"accelerator": "cpu"}


def build(seed, **kwargs):
    seed_everything(seed, verbose=False)
    arguments = {"widths": [4, 6], "hidden": 8}
    return Classifier("SmallCNN", 10, 1, image_size=8, network_args=arguments, optimizer=sgd(0.1, momentum=0.9), **kwargs)


def resnet(seed):
    seed_everything(seed, verbose=False)
    return untrained("ResNet")


def adamw(seed):
    model = build(seed, label_smoothing=0.1, schedule="cosine")
    model.optimizer = lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)
    return model


def compare(make, make_data, precision, how, tolerance, **kwargs):
    together = [make(seed) for seed in SEEDS]
    data = make_data(**kwargs)
    before = data.serving
    fit_together(together, data, "train", SEEDS, 1, {**CPU, "precision": precision}, how)
    assert data.serving == before
    for seed, found in zip(SEEDS, together, strict=True):
        alone = make(seed)
        start = copy.deepcopy(alone.state_dict())
        fit_quietly(alone, make_data(**kwargs), "train", 1, {**CPU, "precision": precision})
        torch.testing.assert_close(found.state_dict(), alone.state_dict(), rtol=tolerance, atol=tolerance)
        moved = [not torch.allclose(value.float(), start[name].float()) for name, value in alone.state_dict().items()]
        assert all(moved)


@pytest.mark.parametrize("how", ["layers", "layers_last", "vmap"])
@pytest.mark.parametrize("make", [build, resnet, adamw])
def test_an_epoch_in_float64_equals_single_training(make, how, make_data):
    """Own initial weights, own order, momentum, schedule, uneven batches, statistics of BatchNorm."""
    compare(make, make_data, "64-true", how, 1e-10)


def test_with_augmentation_and_with_a_shared_order(make_data):
    compare(build, make_data, "64-true", "layers", 1e-10, augmentation=Augmentation(1))
    compare(build, make_data, "64-true", "layers", 1e-10, seed=9)


def test_float32_is_close(make_data):
    compare(build, make_data, "32-true", "layers_last", 1e-4)


class Own(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(1, 1)


def with_lbfgs():
    model = build(0)
    model.optimizer = torch.optim.LBFGS
    return model


def with_dropout():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))
    return Classifier(network, 10, 1, optimizer=sgd(0.1))


@pytest.mark.parametrize(
    ("models", "arguments", "reason"),
    [
        (lambda: [build(0)], {}, "only one"),
        (lambda: [Own(), Own()], {}, "a Own may do anything"),
        (lambda: [build(0), build(1, label_smoothing=0.1)], {}, "differ in their settings"),
        (lambda: [with_lbfgs(), with_lbfgs()], {}, "LBFGS"),
        (lambda: [with_dropout(), with_dropout()], {}, "random numbers"),
        (lambda: [build(0), build(1)], {"gradient_clip_val": 1.0}, "gradient_clip_val"),
        (lambda: [build(0), build(1)], {"precision": "16-mixed"}, "one factor"),
        (lambda: [build(0), build(1)], {"devices": 2}, "several devices"),
    ],
)
def test_what_cannot_be_trained_together_says_why(models, arguments, reason, make_data):
    way = find_way(models(), make_data(), {**CPU, **arguments})
    assert (way.how, way.size) == ("loop", 1)
    assert reason in way.reason


@pytest.mark.parametrize("make", [build, resnet])
def test_the_way_is_one_that_is_right(make, make_data):
    models = [make(seed) for seed in range(8)]
    weights = copy.deepcopy(models[0].state_dict())
    way = find_way(models, make_data(), CPU)
    assert isinstance(way, Way)
    assert way.how in valid_ways([model.network for model in models], make_data().example(4))
    assert way.size == (1 if way.how == "loop" else 8)
    assert way.seconds > 0
    torch.testing.assert_close(models[0].state_dict(), weights, rtol=0, atol=0)
