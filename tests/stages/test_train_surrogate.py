"""A surrogate beside the network: who trains it, and that forgotten samples are to it what held-out ones are."""

import copy

import pytest
import torch
from helpers import sgd

from lightning_unlearn.chain import check_chain, run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.estimators import OwnAnswer, Surrogate
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import EstimateUnseen, ImitateUnseen, TrainSurrogate

FAST = {"optimizer": sgd(0.05, momentum=0.9), "batch_size": 32}


class Watched(TrainSurrogate):
    """Notes the samples that it trains on."""

    def objective(self, batch):
        self.seen = getattr(self, "seen", set()) | set(batch.index.tolist())
        return super().objective(batch)


def known(model, state, data, index):
    """Share of some training samples that a model with other weights knows."""
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    part = torch.isin(data.part("train")[1], index)
    with torch.no_grad():
        batches = [(other(b.input), b.target) for b in data.evaluation_loader("train")]
    right = torch.cat([logits.argmax(1) == target for logits, target in batches])
    return 100 * float(right[part].double().mean())


def test_it_trains_a_copy_on_all_retained_samples_but_those_held_out(trained_resnet, make_data, fresh):
    data, stage = make_data(), Watched(held_out=40, **FAST)
    before = copy.deepcopy(trained_resnet.state_dict())
    run_chain(fresh, trained_resnet, data, [stage])
    assert all(torch.equal(value, before[key]) for key, value in trained_resnet.state_dict().items())
    held_out, retain = stage.artifacts["held_out"]["index"], data.part("retain")[1]
    assert len(held_out) == 40
    assert stage.seen == set(retain.tolist()) - set(held_out.tolist())
    surrogate = stage.artifacts["surrogate"]
    assert surrogate.keys() == before.keys()
    differing = {key.split(".")[1] for key in before if not torch.equal(surrogate[key], before[key])}
    assert differing == {"layer3", "linear"}


def test_it_starts_from_new_weights(trained_resnet, make_data, fresh):
    still, state = TrainSurrogate(optimizer=sgd(0.0)), copy.deepcopy(trained_resnet.state_dict())
    run_chain(fresh, trained_resnet, make_data(), [still])
    new, old = still.artifacts["surrogate"]["network.linear.weight"], state["network.linear.weight"]
    assert abs(float(torch.corrcoef(torch.stack([new.flatten(), old.flatten()]))[0, 1])) < 0.2


def test_forgotten_samples_are_to_it_what_held_out_ones_are(memorising, fresh):
    # A third of the labels is wrong, so what is known was seen.
    model, data = memorising
    last = ParameterSelector(patterns=["network.hidden.*", "network.fc.*"])
    stage = TrainSurrogate(held_out=150, max_epochs=40, parameters=last, schedule="one_cycle", **FAST)
    run_chain(fresh, model, data, [stage])
    state, held_out = stage.artifacts["surrogate"], stage.artifacts["held_out"]["index"]
    retain = data.part("retain")[1]
    share = {
        "trained": known(model, state, data, retain[~torch.isin(retain, held_out)]),
        "held out": known(model, state, data, held_out),
        "forgotten": known(model, state, data, data.part("forget")[1]),
    }
    assert share["trained"] > share["held out"] + 15
    assert abs(share["held out"] - share["forgotten"]) < 10


def test_what_it_says_is_what_is_taught(trained_resnet, make_data, fresh):
    data, model = make_data(), trained_resnet
    train = TrainSurrogate(held_out=40, **FAST)
    estimate = EstimateUnseen([Surrogate()], calibrate=False)
    run_chain(fresh, model, data, [train, estimate])
    other = copy.deepcopy(model)
    other.load_state_dict(train.artifacts["surrogate"])
    with torch.no_grad():
        said = torch.cat([other(b.input) for b in data.evaluation_loader("forget")]).double().softmax(1)
    torch.testing.assert_close(estimate.artifacts["targets"]["probabilities"], 0.98 * said + 0.02 / 10)


def test_it_is_weighed_against_other_estimators(trained_resnet, make_data, fresh):
    estimate = EstimateUnseen([Surrogate(), OwnAnswer()], unseen_samples=40)
    run_chain(fresh, trained_resnet, make_data(), [TrainSurrogate(held_out=40, **FAST), estimate])
    weights = {name: value for name, value in estimate.summary()["estimate"].items() if name.startswith("weight")}
    assert set(weights) == {"weight 1/Surrogate()", "weight 2/OwnAnswer()"}
    assert sum(weights.values()) == pytest.approx(1)


def test_a_request_of_whole_classes_trains_none(trained_resnet, make_data, fresh):
    data = make_data(forget=WholeClasses([3]))
    chain = [TrainSurrogate(), EstimateUnseen([Surrogate()]), ImitateUnseen(max_steps=2)]
    results = run_chain(fresh, trained_resnet, data, chain)
    assert results[0].work == 0
    assert bool((chain[1].artifacts["targets"]["probabilities"][:, 3] == 0).all())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TrainSurrogate(held_out=1), "held_out is 1; needed: at least 2"),
        (lambda: check_chain([EstimateUnseen([Surrogate()])]), "needs the artifact 'surrogate'"),
        (lambda: EstimateUnseen([OwnAnswer()], class_estimators=[Surrogate()]), r"class_estimators is \[Surrogate\(\)\]"),
    ],
)
def test_what_cannot_be_is_refused(build, words):
    with pytest.raises(ChainError, match=words):
        build()
