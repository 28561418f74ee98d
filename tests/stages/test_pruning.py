import copy

import pytest
import torch
from helpers import sgd

from lightning_unlearn.chain.many import run_chain_many
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import FineTune, GaussianNoise, GradientAscent, KeepZeros, MagnitudePrune, SynFlowPrune


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.dim() == 4}


def test_the_smallest_weights_of_all_convolutions_become_zero(trained_resnet, make_data, fresh):
    before = {name: value.clone() for name, value in trained_resnet.state_dict().items()}
    stage = MagnitudePrune(0.9)
    [result] = run_chain(fresh, trained_resnet, make_data(), [stage])
    convolutions = [name for name, p in trained_resnet.named_parameters() if p.dim() == 4]
    magnitudes = torch.cat([before[name].abs().flatten() for name in convolutions])
    limit = magnitudes.sort().values[round(0.9 * len(magnitudes)) - 1]
    after = trained_resnet.state_dict()
    for name, value in before.items():
        expected = torch.where(value.abs() > limit, value, 0) if name in convolutions else value
        assert torch.equal(after[name], expected)
    assert stage.artifacts["pruned"].keys() == set(convolutions)
    kept = sum(int((~pruned).sum()) for pruned in stage.artifacts["pruned"].values())
    assert kept == len(magnitudes) - round(0.9 * len(magnitudes))
    assert set(result.summary["weights_kept"]) == set(convolutions)


@pytest.mark.parametrize("prune", [MagnitudePrune, SynFlowPrune])
def test_all_later_stages_keep_the_zeros(prune, trained_resnet, make_data, fresh):
    tune = FineTune(max_epochs=2, optimizer=sgd(0.05, momentum=0.9, weight_decay=1e-3))
    head = FineTune(optimizer=sgd(0.05, momentum=0.9), parameters=ParameterSelector(parts=["last_stage", "head"]), cache=True)
    ascent = GradientAscent(max_retain_drop=None, optimizer=sgd(0.01, momentum=0.9))
    stages = [prune(0.8), tune, head, ascent, GaussianNoise(0.1)]
    run_chain(fresh, trained_resnet, make_data(), stages)
    pruned = stages[0].artifacts["pruned"]
    total = sum(mask.numel() for mask in pruned.values())
    assert sum(int(mask.sum()) for mask in pruned.values()) == total - round(0.2 * total)
    assert all(torch.equal(mask, pruned[name]) for name, mask in zeros(trained_resnet).items())


def test_pruning_goes_in_front_of_any_method(trained_resnet, make_data, fresh):
    chain = [MagnitudePrune(0.5), *load_method("noise_fine_tune")()]
    check_chain(chain)
    chain[-1].max_epochs = 1
    run_chain(fresh, trained_resnet, make_data(), chain)
    assert all(torch.equal(mask, chain[0].artifacts["pruned"][name]) for name, mask in zeros(trained_resnet).items())


def test_many_models_at_once_keep_their_own_zeros(trained_resnet, make_data, fresh):
    models = [trained_resnet, copy.deepcopy(trained_resnet)]
    with torch.no_grad():
        models[1].network.layer3[0].conv1.weight.mul_(0.1)  # pruned elsewhere
    run_chain_many(fresh, models, make_data(), lambda: [MagnitudePrune(0.8), FineTune(optimizer=sgd(0.05))], [0, 1])
    shares = [float(torch.cat([mask.flatten() for mask in zeros(model).values()]).float().mean()) for model in models]
    assert shares == pytest.approx([0.8, 0.8], abs=1e-3)
    assert not torch.equal(*(zeros(model)["network.layer3.0.conv1.weight"] for model in models))


def test_arguments_are_checked(trained_resnet, make_data, fresh):
    with pytest.raises(ChainError, match=r"sparsity is 1; needed: between 0 and 1"):
        MagnitudePrune(1)
    with pytest.raises(ChainError, match=r"rounds is 0; needed: at least 1"):
        SynFlowPrune(0.5, rounds=0)
    with pytest.raises(ChainError, match="no weight of a convolution or hidden linear layer"):
        run_chain(fresh, trained_resnet, make_data(), [MagnitudePrune(0.5, ParameterSelector(parts=["head"]))])


def test_a_network_that_came_pruned_stays_so(trained_resnet, make_data, fresh):
    with torch.no_grad():
        for p in trained_resnet.parameters():
            if p.dim() == 4:
                p[:, ::2] = 0
    before = zeros(trained_resnet)
    run_chain(fresh, trained_resnet, make_data(), [KeepZeros(), FineTune(optimizer=sgd(0.05, momentum=0.9, weight_decay=1e-3))])
    assert all(torch.equal(mask, before[name]) for name, mask in zeros(trained_resnet).items())


def test_pruning_twice_keeps_what_was_pruned_first(trained_resnet, make_data, fresh):
    run_chain(fresh, trained_resnet, make_data(), [MagnitudePrune(0.9)])
    before = zeros(trained_resnet)
    tune = FineTune(optimizer=sgd(0.05, momentum=0.9, weight_decay=1e-3))
    for second in (MagnitudePrune(0.5), SynFlowPrune(0.5)):
        run_chain(fresh, trained_resnet, make_data(), [KeepZeros(), second, tune])
        assert all(bool(zeros(trained_resnet)[name][mask].all()) for name, mask in before.items())
