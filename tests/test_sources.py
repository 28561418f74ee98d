"""Results are kept under a hash of the user's code: an edit of what runs changes it, and nothing else does."""

import inspect

import pytest
import timm
import torchvision
from helpers import imported, untrained
from torch import nn

from lightning_unlearn.sources import hash_of_sources
from lightning_unlearn.stages import FineTune
from lightning_unlearn.training import describe

LOSSES = "SCALE = 2.0\ndef ascent(x):\n    return -SCALE * x\ndef unused(x):\n    return x\n"
NET = """import torch
from torch import nn
import user_losses
from user_losses import ascent

SLOPE = 0.1

class Base(nn.Module):
    def activate(self, x):
        return nn.functional.leaky_relu(x, SLOPE)

class Other:
    pass

class Net(Base):
    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        self.layer = nn.Linear(64 * in_chans, num_classes)

    @torch.no_grad()
    def decorated(self, x):
        return user_losses.ascent(x)

    def forward(self, x):
        return self.activate(self.layer(x.flatten(1)))
"""


@pytest.fixture
def hash_of_net(tmp_path, monkeypatch):
    def hash_of(net=NET, losses=LOSSES):
        imported(tmp_path, "user_losses", losses, monkeypatch)
        return hash_of_sources([imported(tmp_path, "user_net", net, monkeypatch).Net])

    return hash_of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.activate(self.layer(x.flatten(1)))", "self.layer(x.flatten(1))"),
        ("leaky_relu(x, SLOPE)", "leaky_relu(-x, SLOPE)"),  # of a base class
        ("SLOPE = 0.1", "SLOPE = 0.2"),
    ],
)
def test_an_edit_of_what_runs_is_seen(old, new, hash_of_net):
    assert old in NET
    assert hash_of_net(NET.replace(old, new)) != hash_of_net() == hash_of_net()


def test_so_is_one_of_a_function_in_another_file_and_no_other_edit_is(hash_of_net):
    before = hash_of_net()
    assert hash_of_net(losses=LOSSES.replace("-SCALE", "SCALE")) != before
    assert hash_of_net(losses=LOSSES.replace("2.0", "3.0")) != before
    assert hash_of_net(losses=LOSSES.replace("return x", "return x + 1")) == before
    assert hash_of_net(NET.replace("class Other:\n    pass", "class Other:\n    a = 1")) == before


@pytest.mark.parametrize(("old", "new"), [("'forget'", "'retain'"), ("-5.0", "5.0"), ("* batch", "+ batch")])
def test_classes_without_a_file_are_known_by_constants_and_methods(old, new):
    text = "class Stage:\n    view = 'forget'\n    def objective(self, batch):\n        return -5.0 * batch\n"

    def hash_of(text):
        space = {"__name__": "user_notebook"}
        exec(text, space)
        return hash_of_sources([space["Stage"]])

    assert hash_of(text.replace(old, new)) != hash_of(text) == hash_of(text)


def test_what_is_of_no_user_has_no_source(trained, trained_resnet):
    assert hash_of_sources([FineTune, nn.Linear, dict, inspect.unwrap]) == ""
    for model in (trained, trained_resnet, timm.create_model("resnet18"), torchvision.models.resnet18()):
        assert "source" not in describe(model)


def test_a_model_is_known_by_the_source_of_its_network(tmp_path, monkeypatch):
    def described(text):
        imported(tmp_path, "user_losses", LOSSES, monkeypatch)
        model = untrained()
        model.network = imported(tmp_path, "user_net", text, monkeypatch).Net()
        return describe(model)

    before, after = (
        described(NET),
        described(NET.replace("self.activate(self.layer(x.flatten(1)))", "self.layer(x.flatten(1))")),
    )
    assert before != after
    assert {**before, "source": ""} == {**after, "source": ""}
