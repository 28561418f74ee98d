from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import RunError
from lightning_unlearn.stages import FineTune


class Broken(FineTune):
    """A stage with a fault at one step."""

    def __init__(self, fault, at, **kwargs):
        super().__init__(optimizer=sgd(0.05, momentum=0.9), cache=False, **kwargs)
        self.fault, self.at = fault, at
        self.begin = {}

    def on_train_epoch_start(self):
        self.begin = {name: value.clone() for name, value in self.classifier.state_dict().items()}

    def training_step(self, batch, batch_idx):
        broken = (self.current_epoch, batch_idx) == self.at
        x = batch.input * float("nan") if broken and self.fault == "input" else batch.input
        logits = self.classifier(x)
        loss = F.cross_entropy(logits, batch.target)
        if broken and self.fault == "loss":
            loss = loss * float("inf")
        if broken and self.fault == "gradient":
            logits.register_hook(lambda gradient: gradient * float("nan"))
        if broken and self.fault == "weight":
            self.trainer.optimizers[0].param_groups[0]["lr"] = 1e38
        return loss


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("input", "a loss is not finite at batch 2 of epoch 1"),
        ("loss", "a loss is not finite at batch 2 of epoch 1"),
        ("gradient", "a gradient is not finite at batch 2 of epoch 1"),
        # Seen at the next step, whose loss it makes infinite.
        ("weight", "a loss is not finite at batch 3 of epoch 1"),
    ],
)
def test_the_last_good_weights_come_back(fault, message, trained_resnet, make_data, fresh):
    """The network has BatchNorm, whose statistics a broken batch spoils before the loss is known."""
    stage = Broken(fault, (1, 2), max_epochs=2)
    start = {name: value.clone() for name, value in trained_resnet.state_dict().items()}
    with pytest.raises(RunError, match=f"Broken: {message}"):
        run_chain(fresh, trained_resnet, make_data(), [stage])
    state = trained_resnet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in stage.begin.items())
    assert any(not torch.equal(value, state[name]) for name, value in start.items())  # the first epoch was kept


def test_nan_in_the_data_is_found(trained, make_data, fresh, digits):
    data = make_data()
    data.dataset = replace_mean(digits)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    with pytest.raises(RunError, match=r"a loss is not finite at batch 0 of epoch 0.*look for NaN in the data"):
        run_chain(fresh, trained, data, [FineTune()])
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in before.items())


def replace_mean(dataset):
    from lightning_unlearn.data.vision import VisionData

    return VisionData("broken", replace(dataset.train), dataset.test, dataset.classes, [float("nan")], dataset.std)


def test_a_healthy_fit_passes(trained, make_data, fresh):
    results = run_chain(fresh, trained, make_data(), [FineTune(optimizer=sgd(0.01))])
    assert len(results) == 1
