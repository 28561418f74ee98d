import copy
import logging

import pytest
import torch
from helpers import sgd

from lightning_unlearn.callbacks.select_by_unseen import SelectByUnseen
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.metrics.unseen_match import error_gap, margin_advantage, within_budget
from lightning_unlearn.outputs import PartOutputs
from lightning_unlearn.stages import FineTune, GradientAscent, Scrub


class Epochs:
    """Keeps a copy of the network at the end of every epoch."""

    def on_train_epoch_end(self):
        self.ends = [*getattr(self, "ends", []), copy.deepcopy(self.classifier).cpu().eval()]


class RecordedScrub(Epochs, Scrub):
    pass


class RecordedAscent(Epochs, GradientAscent):
    pass


class RecordedTuning(Epochs, FineTune):
    pass


def outputs(model, data, part):
    with torch.no_grad():
        batches = [(model(b.input), b.target, b.index) for b in data.evaluation_loader(part)]
    return PartOutputs.gathered(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def accuracy(model, data):
    found = outputs(model, data, "retain")
    return 100 * float((found.logits.argmax(1) == found.targets).float().mean())


def ascent(select, **kwargs):
    settings = {"max_epochs": 14, "max_retain_drop": None, "ceiling": 20.0, "optimizer": sgd(0.02, momentum=0.9), **kwargs}
    return RecordedAscent(callbacks=[select], **settings)


def test_the_nearest_epoch_within_the_budget_comes_back(trained, make_data, spied, fresh):
    data = make_data(spied, unseen=80)  # reading a test image would raise
    select, start = SelectByUnseen(max_retain_drop=20, samples=10_000), copy.deepcopy(trained)
    stage = ascent(select)
    results = run_chain(fresh, trained, data, [stage])
    retain = [accuracy(model, data) for model in (start, *stage.ends)]
    distances = [margin_advantage(outputs(m, data, "forget"), outputs(m, data, "unseen")) for m in stage.ends]
    assert select.distances == pytest.approx(distances, abs=1e-6)
    fits = [max(retain) - value <= 20 for value in retain][1:]
    assert 0 < sum(fits) < len(fits)
    expected = min((i for i in range(len(fits)) if fits[i]), key=distances.__getitem__)
    # Or the test would not tell choosing from stopping, nor the budget from none.
    assert expected != len(fits) - 1
    assert select.chosen == expected
    assert results[0].summary["selected"] == {"epoch": expected + 1, "of": 14, "distance": pytest.approx(distances[expected])}
    state = stage.ends[expected].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_scrubs_rewinding_is_a_special_case(trained_resnet, make_data, spied, fresh):
    """The round whose forget error is nearest to the unseen error of the same classes at the last round, by hand."""
    data, select = make_data(spied, unseen=80), SelectByUnseen("error", "last", 100.0)
    settings = {"temperature": 2.0, "retain_weight": 0.5, "ceiling": 30.0, "forget_batch_size": 8, "optimizer": sgd(0.05)}
    stage = RecordedScrub(rounds=5, callbacks=[select], **settings)
    run_chain(fresh, trained_resnet, data, [stage])
    last = outputs(stage.ends[-1], data, "unseen")
    gaps = [error_gap(outputs(model, data, "forget"), last) for model in stage.ends]
    assert select.distances == pytest.approx(gaps)
    assert select.chosen == gaps.index(min(gaps))
    assert len({round(gap, 6) for gap in gaps}) > 1
    state = stage.ends[select.chosen].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained_resnet.state_dict().items())
    shipped = load_method("scrub_rewind")()[0].callbacks[0]
    assert (shipped.statistic, shipped.unseen_at, shipped.max_retain_drop) == ("error", "last", 100.0)


def test_where_every_epoch_breaks_the_network_the_start_comes_back(trained, make_data, fresh, caplog):
    data, start, select = make_data(unseen=80), copy.deepcopy(trained), SelectByUnseen(max_retain_drop=2)
    with caplog.at_level(logging.WARNING):
        run_chain(fresh, trained, data, [ascent(select, max_epochs=2, optimizer=sgd(0.5))])
    assert select.chosen == -1
    assert "every epoch lost more than 2.0 points" in caplog.text
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in trained.state_dict().items())


def test_after_a_broken_start_the_budget_is_that_of_the_best_epoch(trained, make_data, fresh):
    data, select = make_data(unseen=80), SelectByUnseen(max_retain_drop=5)
    with torch.no_grad():
        trained.network.fc.weight.zero_()
        trained.network.fc.bias.zero_()
    stage = RecordedTuning(max_epochs=6, optimizer=sgd(0.05), callbacks=[select])
    run_chain(fresh, trained, data, [stage])
    best = max(accuracy(model, data) for model in stage.ends)
    assert best > 60
    assert accuracy(trained, data) >= best - 5


def test_neither_test_samples_nor_references_can_be_asked_for(trained, make_data, spied, digits, fresh):
    """Test labels are others in every run, test images cannot be read: the choice and the weights are the same."""
    states = []
    for turn in (0, 3):
        test = spied.test
        changed = type(test)(test.images, (test.targets + turn) % 10, test.keys)
        dataset = VisionData("digits", spied.train, changed, spied.classes, spied.mean, spied.std)
        model, select = copy.deepcopy(trained), SelectByUnseen()
        run_chain(fresh, model, make_data(dataset, unseen=80), [ascent(select, max_epochs=3)])
        states.append((select.chosen, model.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(value, states[1][1][name]) for name, value in states[0][1].items())


def test_unseen_samples_of_the_classes_are_needed(trained, make_data, fresh):
    data = make_data(unseen=0, forget=WholeClasses([3]))
    with pytest.raises(ChainError, match="no unseen samples of the forgotten classes"):
        run_chain(fresh, trained, data, [ascent(SelectByUnseen())])


def test_the_budget_is_measured_from_the_best():
    assert within_budget([90.0, 95.0, 89.9, 96.0], 6.0) == [True, True, False, True]
