import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd
from torch import nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.batch import Batch, parts_of
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.modes import set_modes
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import (
    AdversarialExamples,
    ContrastiveRounds,
    DistilOriginal,
    FineTune,
    MaskLearning,
    RepairReset,
    ResetByGradient,
    UnlearningStage,
)


class Detached(FineTune):
    """Its loss leads nowhere."""

    def objective(self, batch):
        return super().objective(batch).detach()


class Plain(UnlearningStage):
    """A stage without an objective."""

    view = "retain"


def part(n, total, start=0):
    return Batch(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), torch.arange(start, start + n), total)


def test_uneven_ranks_weigh_every_sample_alike():
    """DDP averages over ranks: the mean of what two uneven ranks give is the mean over all samples."""
    stage = Plain()
    stage._trainer = SimpleNamespace(world_size=2)
    values = torch.rand(7, dtype=torch.float64)
    ranks = [(values[:4], part(4, 7)), (values[4:], part(3, 7, 4))]
    together = sum(stage.mean(v, batch) for v, batch in ranks) / 2
    torch.testing.assert_close(together, values.mean())


def test_a_whole_batch_weighs_one():
    stage = Plain()
    stage._trainer = SimpleNamespace(world_size=1)
    assert stage.rank_weight(part(5, 0)) == 1
    assert stage.rank_weight(part(5, 5)) == 1


def test_modes_follow_what_is_trained():
    network = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        nn.Dropout(),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()),
    )
    set_modes(network, {f"2.{name}" for name, _ in network[2].named_parameters()})
    assert [network[i].training for i in range(3)] == [False, False, True]
    assert all(module.training for module in network[2].modules())
    assert not any(module.training for module in network[0].modules())
    set_modes(network, {"2.0.weight"})  # half of a layer: its statistics stay
    assert not any(module.training for module in network.modules())
    set_modes(network, {name for name, _ in network.named_parameters()})
    assert all(module.training for module in network.modules())


def test_bind_freezes_and_release_puts_back(trained):
    trained.network.features[0].bias.requires_grad_(False)
    found = {name: p.requires_grad for name, p in trained.named_parameters()}
    stage = Plain(parameters=ParameterSelector(parts=["head"]))
    stage.bind(trained, Artifacts())
    assert [name for name, p in trained.named_parameters() if p.requires_grad] == ["network.fc.weight", "network.fc.bias"]
    stage.release()
    assert {name: p.requires_grad for name, p in trained.named_parameters()} == found
    assert not hasattr(stage, "classifier")


def test_a_loss_without_a_gradient_is_refused(trained, make_data, fresh):
    with pytest.raises(ChainError, match="Detached: objective returned a loss without a gradient"):
        run_chain(fresh, trained, make_data(), [Detached()])


def test_a_stage_that_trains_must_say_what(trained, make_data, fresh):
    with pytest.raises(NotImplementedError, match="Plain trains, so it must define `objective`"):
        run_chain(fresh, trained, make_data(), [Plain()])


@pytest.mark.parametrize("view", ["retain", "both", "forget_then_retain"])
def test_a_loss_of_logits_is_the_objective_of_one_forward_pass(view, trained, make_data, fresh):
    calls = []

    class OfLogits(UnlearningStage):
        def loss_of(self, logits, batch):
            targets = torch.cat([part.target for part in parts_of(batch)])
            calls.append((list(batch) if isinstance(batch, dict) else None, len(logits), len(targets)))
            return F.cross_entropy(logits, targets)

    class Spelt(OfLogits):
        def objective(self, batch):
            parts = [batch] if isinstance(batch, Batch) else [batch[name] for name in ("forget", "retain") if name in batch]
            return F.cross_entropy(self.classifier(torch.cat([p.input for p in parts])), torch.cat([p.target for p in parts]))

    states = []
    for kind in (OfLogits, Spelt):
        kind.__name__ = "Same"  # the order of samples follows from it
        stage, model = kind(optimizer=sgd(0.05)), copy.deepcopy(trained)
        stage.view = view
        run_chain(fresh, model, make_data(), [stage])
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert calls
    assert all(rows == targets for _, rows, targets in calls)
    expected = {"retain": [None], "both": [["forget", "retain"]], "forget_then_retain": [["forget"], ["retain"]]}
    assert [seen for i, (seen, *_) in enumerate(calls) if seen not in [c[0] for c in calls[:i]]] == expected[view]


def test_the_mean_over_both_parts_counts_every_sample_of_every_rank_alike():
    values = torch.arange(12.0, dtype=torch.float64).square()
    forgotten, retained = values[:5], values[5:]
    ranks = [(forgotten[:3], retained[:3]), (forgotten[3:], retained[3:])]
    found = []
    for f, r in ranks:
        stage = Plain()
        stage._trainer = SimpleNamespace(world_size=2)
        parts = {"forget": part(len(f), 5), "retain": part(len(r), 7)}
        assert [part.count for part in parts.values()] == [5, 7]
        found.append(stage.mean_of_both(f, r, parts))
    torch.testing.assert_close(torch.stack(found).mean(), values.mean())
    assert part(5, 0).count == 5


def test_an_object_that_runs_again_counts_its_own_work_alone(trained, make_data, fresh):
    data = make_data()
    chain = [MaskLearning(max_epochs=8, penalty=1e-3), FineTune(max_epochs=1), AdversarialExamples(steps=2)]
    runs = [run_chain(fresh, copy.deepcopy(trained), data, chain) for _ in range(3)]
    for first, *others in zip(*runs, strict=True):
        assert first.work > 0
        for other in others:
            assert (other.work, other.summary.keys()) == (first.work, first.summary.keys()), first.name
    assert [len(run[0].summary["mask_course"]) for run in runs] == [len(chain[0]._course)] * 3


def test_a_warning_is_that_of_its_own_run(trained, make_data, fresh):
    class Warns(FineTune):
        def on_fit_start(self):
            super().on_fit_start()
            if not found:
                self.warning = "The first run failed."

    stage, found = Warns(), []
    for _ in range(2):
        found += run_chain(fresh, copy.deepcopy(trained), make_data(), [stage])
    assert [result.warning for result in found] == ["The first run failed.", ""]


def plain():
    return Classifier("SmallCNN", in_chans=1, image_size=8)


def normalised():
    return Classifier("ResNet", in_chans=1, image_size=8, network_args={"blocks": [1], "width": 4})


@pytest.mark.parametrize("stages", [[FineTune], [ContrastiveRounds], [DistilOriginal], [ResetByGradient, RepairReset]])
@pytest.mark.parametrize(("model", "factor"), [(plain, 0.25), (normalised, 1)])
def test_networks_without_normalisation_learn_slower(stages, model, factor, make_data, fresh):
    """They do not stand the rate of those that have it."""
    *before, last = stages
    found = []

    class Seen(last):
        def on_train_start(self):
            super().on_train_start()
            groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
            found.extend(group.get("initial_lr", group["lr"]) for group in groups)

    chain = [*(stage() for stage in before), Seen(optimizer=sgd(0.01), unnormalised_rate=0.25)]
    run_chain(fresh, model(), make_data(), chain)
    assert found == pytest.approx([0.01 * factor] * len(found))
    assert found


@pytest.mark.parametrize("rate", [0, -0.5, float("nan"), float("inf")])
def test_rates_are_finite_and_above_zero(rate):
    with pytest.raises(ChainError, match=f"FineTune: unnormalised_rate is {rate}; needed: a finite number above 0"):
        FineTune(unnormalised_rate=rate)
