"""What several test files build with; a module of its own, because folders have conftest files of their own."""

import importlib
import sys

import torch

from lightning_unlearn.classifier import Classifier
from lightning_unlearn.random import at_stage


def sgd(lr, **kwargs):
    return lambda params: torch.optim.SGD(params, lr=lr, **kwargs)


def untrained(network="SmallCNN"):
    """A small network for the digits."""
    arguments = {"SmallCNN": {"widths": [8, 16], "hidden": 32}, "ResNet": {"width": 4}}[network]
    return Classifier(network, 10, 1, image_size=8, network_args=arguments, optimizer=sgd(0.1, momentum=0.9))


def steps(data, stage, epoch, position=0):
    """Batches by part of an epoch as a stage at this place of a chain was served them, for plain loops beside it."""
    before = data.serve(stage.view, *stage.sizes(data), f"{position}/{type(stage).__name__}")
    with at_stage(position):
        plan = data.plan
    data.serving = before
    for pieces in plan.steps(epoch):
        batches = {}
        for name, piece in pieces.items():
            maker = data.evaluation_loader("train", piece.index).maker
            batches[name] = maker.make(next(iter(maker.read([[piece.index]])))[0], piece, augment=False)
        yield batches


def assert_same(model, expected, rtol=1e-4, atol=1e-6):
    """Weights and buffers of two networks agree."""
    other = expected.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def imported(folder, name, text, monkeypatch):
    """A module of the user's with this text, as a new Python would import it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))
    (folder / f"{name}.py").write_text(text)
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    # Taken away again when the test ends.
    monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return module
