"""A surrogate beside the network: who trains it, and that forgotten samples are to it what held-out ones are."""

import copy

import pytest
import torch
from helpers import sgd
from torch import nn

from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import KernelRegression, OwnAnswer, Surrogate
from lightning_unlearn.stages import EstimateUnseen, ImitateUnseen, MagnitudePrune, TrainSurrogate
from lightning_unlearn.stages.reset_layers import reset_modules

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
    data, stage = make_data(), Watched(held_out_samples=40, **FAST)
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


def test_every_kernel_and_matrix_of_its_end_starts_anew(trained_resnet, make_data, fresh):
    still, before = TrainSurrogate(optimizer=sgd(0.0)), copy.deepcopy(trained_resnet.state_dict())
    run_chain(fresh, trained_resnet, make_data(), [still])
    after = still.artifacts["surrogate"]
    anew = [key for key, value in before.items() if key.split(".")[1] in ("layer3", "linear") and value.ndim > 1]
    assert len(anew) == 4
    for key in anew:
        pair = torch.stack([before[key].flatten(), after[key].flatten()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.3, key


class Custom(nn.Module):
    """A layer that cannot reset itself, with a scale."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(64, 64) * 0.3 + 0.1)
        self.scale = nn.Parameter(torch.full((64,), 0.5))

    def forward(self, x):
        return self.scale * (x @ self.matrix)


def test_layers_that_cannot_reset_themselves_are_drawn_anew_like_their_old_weights():
    attention = nn.MultiheadAttention(64, 1)
    network = nn.Sequential(nn.Flatten(), Custom(), nn.Linear(64, 10))
    network.attention = attention  # torch's, whose reset has an underscore
    before = copy.deepcopy(network.state_dict())
    reset_modules(network, set(before), torch.Generator().manual_seed(0), redraw=True)
    after = network.state_dict()
    for key in ("1.matrix", "attention.in_proj_weight"):
        pair = torch.stack([before[key].flatten(), after[key].flatten()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.1
        assert float(after[key].std()) == pytest.approx(float(before[key].std()), rel=0.1)
    assert torch.equal(after["1.scale"], before["1.scale"])


class TwoNames(nn.Module):
    """A network that is reached by two names."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.again = network

    def forward(self, x):
        return self.network(x)


def test_a_network_with_two_names_is_asked(trained_resnet, make_data, fresh):
    data, end = make_data(), ParameterSelector(patterns=["network.layer3.*", "network.linear.*"])
    chain = [TrainSurrogate(held_out_samples=40, parameters=end, **FAST), EstimateUnseen([Surrogate()], unseen_samples=40)]
    plain = [TrainSurrogate(held_out_samples=40, **FAST), EstimateUnseen([Surrogate()], unseen_samples=40)]
    run_chain(fresh, TwoNames(trained_resnet.network), data, chain)
    run_chain(fresh, trained_resnet, data, plain)
    found, expected = (stages[1].artifacts["targets"]["probabilities"] for stages in (chain, plain))
    torch.testing.assert_close(found, expected)


def test_what_is_pruned_stays_pruned(trained_resnet, make_data, fresh):
    stage = TrainSurrogate(held_out_samples=40, **FAST)
    run_chain(fresh, trained_resnet, make_data(), [MagnitudePrune(0.8), stage])
    zeros = trained_resnet.network.layer3[0].conv1.weight == 0
    assert float(zeros.float().mean()) > 0.5
    assert bool((stage.artifacts["surrogate"]["network.layer3.0.conv1.weight"][zeros] == 0).all())


def test_a_run_that_ended_after_it_goes_on(trained_resnet, make_data, fresh, tmp_path, monkeypatch):
    def run(folder):
        chain = [TrainSurrogate(held_out_samples=40, **FAST), EstimateUnseen([Surrogate()], unseen_samples=40)]
        results = run_chain(fresh, copy.deepcopy(trained_resnet), make_data(), chain, folder)
        return results, chain[1].artifacts["targets"]["probabilities"]

    def kill(self):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(EstimateUnseen, "on_fit_start", kill)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(TrainSurrogate, "on_fit_start", kill)  # it has ended
        results, found = run(tmp_path)
    assert [result.name for result in results] == ["TrainSurrogate", "EstimateUnseen"]
    assert torch.equal(found, run(None)[1])


def test_forgotten_samples_are_to_it_what_held_out_ones_are(memorising, fresh):
    # A third of the labels is wrong, so what is known was seen.
    model, data = memorising
    last = ParameterSelector(patterns=["network.hidden.*", "network.fc.*"])
    stage = TrainSurrogate(held_out_samples=150, max_epochs=40, parameters=last, schedule="one_cycle", **FAST)
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
    train = TrainSurrogate(held_out_samples=40, **FAST)
    estimate = EstimateUnseen([Surrogate()], calibrate=False)
    run_chain(fresh, model, data, [train, estimate])
    other = copy.deepcopy(model)
    other.load_state_dict(train.artifacts["surrogate"])
    with torch.no_grad():
        said = torch.cat([other(b.input) for b in data.evaluation_loader("forget")]).double().softmax(1)
    torch.testing.assert_close(estimate.artifacts["targets"]["probabilities"], 0.98 * said + 0.02 / 10)


def test_it_is_believed_rather_than_a_memory(memorising, fresh):
    model, data = memorising
    last = ParameterSelector(patterns=["network.hidden.*", "network.fc.*"])
    train = TrainSurrogate(held_out_samples=150, max_epochs=20, parameters=last, schedule="one_cycle", **FAST)
    estimate = EstimateUnseen([Surrogate(), OwnAnswer()], unseen_samples=100)
    run_chain(fresh, model, data, [train, estimate])
    weights = estimate.summary()["estimate"]
    assert weights["weight 1/Surrogate()"] > weights["weight 2/OwnAnswer()"]


class Keeping(EstimateUnseen):
    """Keeps its guesses."""

    def _guesses(self, *args):
        self.kept = super()._guesses(*args)
        return self.kept


def test_beside_it_a_regression_looks_at_more_than_what_was_held_out(trained_resnet, make_data, fresh):
    data, train = make_data(), TrainSurrogate(held_out_samples=40, **FAST)
    regression = KernelRegression(layer="last_stage")
    estimate = Keeping([Surrogate(), regression], unseen_samples=40, bank_samples=150, rank_samples=30)
    run_chain(fresh, trained_resnet, data, [train, estimate])
    held_out, bank = train.artifacts["held_out"]["index"], estimate.kept._bank
    assert torch.isin(held_out, bank).all()
    assert torch.isin(data.random_part("retain", 150, "estimate"), bank).all()
    assert len(estimate.kept._members) == 30
    assert torch.isin(estimate.kept._members, held_out).all()


def test_a_request_of_whole_classes_trains_none(trained_resnet, make_data, fresh):
    data = make_data(forget=WholeClasses([3]))
    chain = [TrainSurrogate(), EstimateUnseen([Surrogate()]), ImitateUnseen(max_steps=2)]
    results = run_chain(fresh, trained_resnet, data, chain)
    assert results[0].work == 0
    assert bool((chain[1].artifacts["targets"]["probabilities"][:, 3] == 0).all())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TrainSurrogate(held_out_samples=1), "held_out_samples is 1; needed: at least 2"),
        (lambda: check_chain([EstimateUnseen([Surrogate()])]), "needs the artifact 'surrogate'"),
        (lambda: EstimateUnseen([OwnAnswer()], class_estimators=[Surrogate()]), r"class_estimators is \[Surrogate\(\)\]"),
    ],
)
def test_what_cannot_be_is_refused(build, words):
    with pytest.raises(ChainError, match=words):
        build()
