import logging

import torch
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.stages import GradientAscent


class Recorded(GradientAscent):
    """Keeps the weights that it had at the beginning of every epoch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.begins = []

    def on_train_epoch_start(self):
        self.begins.append({name: value.clone() for name, value in self.classifier.state_dict().items()})


def retain_accuracy(model, data):
    right = [model(batch.input).argmax(1) == batch.target for batch in data.evaluation_loader("retain")]
    return 100 * float(torch.cat(right).float().mean())


def test_weights_of_the_last_epoch_within_the_budget_come_back(trained, make_data, fresh, caplog):
    data = make_data()
    start = retain_accuracy(trained, data)
    stage = Recorded(max_epochs=30, max_retain_drop=5.0, optimizer=sgd(0.02, momentum=0.9))
    with caplog.at_level(logging.WARNING):
        run_chain(fresh, trained, data, [stage])
    assert "retain accuracy fell" in caplog.text
    assert 2 <= len(stage.begins) < 30
    # The epoch that broke the network began from the last good weights.
    state = trained.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in stage.begins[-1].items())
    assert start - 5 <= retain_accuracy(trained, data) <= start


def test_without_a_budget_the_network_breaks(trained, make_data, fresh):
    data = make_data()
    start = retain_accuracy(trained, data)
    run_chain(fresh, trained, data, [GradientAscent(max_epochs=30, max_retain_drop=None, optimizer=sgd(0.02, momentum=0.9))])
    assert retain_accuracy(trained, data) < start - 20
