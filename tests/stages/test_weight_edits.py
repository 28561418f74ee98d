"""Stages that edit weights without data: noise, new layers, a new start."""

import copy

import pytest
import torch
from helpers import sgd
from torch import nn

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages import (
    EstimateUnseen,
    FineTune,
    FisherNoise,
    GaussianNoise,
    ImitateUnseen,
    Influence,
    KeepZeros,
    ResetLayers,
    Retrain,
)
from lightning_unlearn.stages.gaussian_noise import add_noise
from lightning_unlearn.stages.reset_layers import reset_modules


@pytest.mark.parametrize("relative", [True, False])
def test_noise_has_the_deviation_that_was_asked_for(relative):
    n = 40_000
    weights = [torch.full((n,), 5.0, dtype=torch.float64), torch.full((n,), -0.1, dtype=torch.float64)]
    add_noise(weights, 0.3, torch.Generator().manual_seed(0), relative)
    for weight, start in zip(weights, (5.0, -0.1), strict=True):
        expected = 0.3 * abs(start) if relative else 0.3
        assert abs((weight - start).std() / expected - 1) < 5 / (2 * n) ** 0.5
        assert abs((weight - start).mean()) < 5 * expected / n**0.5


def test_noise_follows_the_seed_of_the_run(trained, make_data, fresh, monkeypatch):
    weights = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        model = copy.deepcopy(trained)
        run_chain(fresh, model, make_data(), [GaussianNoise(0.1)])
        weights.append(model.network.fc.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_reset_draws_what_the_layer_itself_would_draw():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(7)
    before = torch.random.get_rng_state()
    assert reset_modules(network, {"1.weight", "2.bias"}, torch.Generator().manual_seed(0)) == 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (network[0].weight == 7).all()
    # The whole module is drawn anew, running statistics included.
    assert (network[1].running_mean == 0).all()
    assert network[1].num_batches_tracked == 0
    assert network[2].weight.abs().max() <= 1 / 3**0.5
    assert network[2].weight.unique().numel() == 6


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_reset_that_keeps_weights_is_refused_and_norms_without_parameters_are_reset():
    network = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    with pytest.raises(ChainError, match=r"0 \(Linear\) keeps \['weight_g', 'weight_v'\] in its reset_parameters"):
        reset_modules(network, {"0.weight_g", "0.weight_v"}, torch.Generator().manual_seed(0))
    halves = nn.Sequential(*(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False)) for _ in range(2)))
    halves.train()(torch.randn(8, 1, 4, 4) + 9)
    reset_modules(halves, {"1.0.weight", "1.0.bias"}, torch.Generator().manual_seed(0))
    assert halves[0][1].running_mean.abs().min() > 0
    assert halves[1][1].running_mean == 0


def test_what_cannot_be_drawn_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    with pytest.raises(ChainError, match=r"0 \(Scale\) has no reset_parameters.*\['0.gain'\]"):
        reset_modules(nn.Sequential(Scale()), {"0.gain"}, torch.Generator())


def test_reset_layers_takes_blocks_from_both_ends(trained_resnet, make_data, fresh):
    before = copy.deepcopy(trained_resnet.state_dict())
    run_chain(fresh, trained_resnet, make_data(), [ResetLayers(first_blocks=1, last_blocks=1)])
    changed = {name for name, value in trained_resnet.state_dict().items() if not torch.equal(value, before[name])}
    assert {"network.conv1.weight", "network.linear.weight"} <= changed
    assert not any(".layer" in name for name in changed)


def test_nothing_to_do_is_refused():
    with pytest.raises(ChainError, match="nothing is selected"):
        ResetLayers()
    with pytest.raises(ChainError, match="std is 0"):
        GaussianNoise(0)


def test_retraining_does_not_depend_on_the_weights_before(trained, make_data, fresh):
    outcomes = []
    for factor in (1, 100):
        model = copy.deepcopy(trained)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        run_chain(fresh, model, make_data(), [Retrain(max_epochs=1, optimizer=sgd(0.05))])
        outcomes.append(model.state_dict())
    assert all(torch.equal(value, outcomes[1][name]) for name, value in outcomes[0].items())


def test_retraining_reaches_what_training_reached(trained, make_data, fresh):
    data = make_data()

    def accuracy(part):
        return float(torch.cat([trained(b.input).argmax(1) == b.target for b in data.evaluation_loader(part)]).float().mean())

    before = accuracy("retain")
    run_chain(fresh, trained, data, [Retrain(max_epochs=8, optimizer=sgd(0.1, momentum=0.9))])
    assert accuracy("retain") > before - 0.05
    assert before > 0.8


def test_noise_stays_where_it_was_put(trained, make_data, fresh):
    before = copy.deepcopy(trained.state_dict())
    run_chain(fresh, trained, make_data(), [GaussianNoise(0.1, parameters=ParameterSelector(patterns=["*.fc.bias"]))])
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.fc.bias"}


def test_frozen_blocks_are_not_reset(trained, make_data, fresh):
    """What follows does not train them."""
    trained.network.fc.requires_grad_(False)
    with pytest.raises(ChainError, match=r"ResetLayers: all of \['network.fc.weight', 'network.fc.bias'\] is frozen"):
        run_chain(fresh, trained, make_data(), [ResetLayers(last_blocks=1)])
    trained.network.fc.bias.requires_grad_(True)
    stage = ResetLayers(last_blocks=1)
    assert stage.choose(trained) == ["network.fc.bias"]
    weight, bias = trained.network.fc.weight.clone(), trained.network.fc.bias.clone()
    run_chain(fresh, trained, make_data(), [stage])
    assert torch.equal(trained.network.fc.weight, weight)
    assert not torch.equal(trained.network.fc.bias, bias)
    named = ResetLayers(parameters=ParameterSelector(parts=["head"]))
    assert named.choose(trained) == ["network.fc.weight", "network.fc.bias"]


def test_a_layer_that_shares_its_weight_with_one_that_stays_is_not_reset():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    network[1].weight = network[0].weight
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ChainError, match=r"1 \(Linear\) shares \['0.weight'\] with a module that is not reset"):
        reset_modules(network, {"1.bias"}, generator("test"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert reset_modules(network, {"0.weight", "0.bias", "1.bias"}, generator("test")) == 2


def test_a_network_that_is_frozen_as_a_whole(trained, make_data, fresh):
    trained.requires_grad_(False)
    data = make_data(unseen=40)
    for stage in (FineTune(), Influence(), FisherNoise()):
        with pytest.raises(
            ChainError, match=f"{type(stage).__name__}: every parameter of the network is frozen. Unfreeze some"
        ):
            run_chain(fresh, trained, data, [stage])
    # Who only looks, and who is told where to train, may run; zeros stay there, too.
    zeros = trained.network.hidden[1].weight.detach().abs() < 0.05
    with torch.no_grad():
        trained.network.hidden[1].weight[zeros] = 0
    end = ParameterSelector(parts=[], patterns=["network.hidden.1.*", "network.fc.*"])
    run_chain(fresh, trained, data, [KeepZeros(), EstimateUnseen(), ImitateUnseen(passes=1, parameters=end)])
    assert torch.equal(trained.network.hidden[1].weight == 0, zeros)
