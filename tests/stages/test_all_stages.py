"""One row of settings per stage, and one test over all of them."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from helpers import sgd

import lightning_unlearn.stages as stages
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, Neighbours
from lightning_unlearn.weights.mnemonic import draw_codes, give_codes

END = ParameterSelector(parts=["last_stage", "head"])
LAST = ("network.layer3.",)
PRUNED = ("network.layer3.0.conv", "network.layer3.0.shortcut.0.")


@dataclass
class Settings:
    """Arguments of a stage, and the beginnings of the names of what it changes."""

    arguments: dict = field(default_factory=dict)
    changes: tuple[str, ...] = ()


ROWS = {
    "AdversarialExamples": Settings({"steps": 5}),
    "AdversarialFineTune": Settings({"optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "BadTeacher": Settings({"max_epochs": 2, "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "ClassMeanTargets": Settings(),
    "ClassWeightedFineTune": Settings({"optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "ContrastiveRounds": Settings({"optimizer": sgd(0.01), "parameters": END}, (*LAST, "network.linear.")),
    "DistilOriginal": Settings({"optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "ErrorMaximisingNoise": Settings({"count": 8, "steps": 4}),
    "EstimateUnseen": Settings({"estimators": [Copies(2, (1,)), Neighbours(3)], "unseen_samples": 20}),
    "FineTune": Settings({"optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "FisherForgetting": Settings({"samples": 20, "kind": "model_mc", "parameters": END}, (*LAST, "network.linear.")),
    "FisherNoise": Settings({"samples": 20, "parameters": END}, (*LAST, "network.linear.")),
    "GaussianNoise": Settings({"std": 0.1, "parameters": ParameterSelector(parts=["last_stage"])}, LAST),
    "GradientAscent": Settings({"max_retain_drop": 100.0, "parameters": END}, (*LAST, "network.linear.")),
    "ImitateUnseen": Settings({"max_steps": 3, "parameters": END}, (*LAST, "network.linear.")),
    "Impair": Settings({"noise_per_class": 8, "batch_size": 16, "parameters": END}, (*LAST, "network.linear.")),
    "Influence": Settings({"samples": 20, "parameters": END}, (*LAST, "network.linear.")),
    "IterativePrune": Settings({"sparsity": 0.5, "rate": 0.3, "epochs": 1, "rewind_epoch": 0}, ("network.",)),
    "KLToUniform": Settings({"optimizer": sgd(0.01), "parameters": END}, (*LAST, "network.linear.")),
    "KeepWeights": Settings(),
    "KeepZeros": Settings(),
    "L1Sparse": Settings({"max_epochs": 2, "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "MagnitudePrune": Settings({"sparsity": 0.5, "parameters": END}, PRUNED),
    "MaskLearning": Settings({"max_epochs": 10, "penalty": 1e-4}),
    "MatchEntropy": Settings({"epochs": 0.5, "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "MnemonicForgetting": Settings({"parameters": END}, (*LAST, "network.linear.")),
    "NegGradPlus": Settings({"max_retain_drop": 100.0, "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "NormDecay": Settings({"factor": 0.5}, LAST),
    "RandomLabel": Settings({"optimizer": sgd(0.01), "parameters": END}, (*LAST, "network.linear.")),
    "RandomTensorFineTune": Settings({"max_epochs": 6, "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "RedrawSmallest": Settings({"share": 0.9, "parameters": END}, (*PRUNED, "network.linear.")),
    "Relabel": Settings({"max_steps": 3, "parameters": END}, (*LAST, "network.linear.")),
    "Repair": Settings({"parameters": END}, (*LAST, "network.linear.")),
    "RepairReset": Settings({"multipliers": [0.5, 1.0], "optimizer": sgd(0.05), "parameters": END}, (*LAST, "network.linear.")),
    "ResetByGradient": Settings({"parameters": END}, (f"{LAST[0]}0.conv", f"{LAST[0]}0.shortcut.0.")),
    "ResetLayers": Settings({"last_blocks": 1}, ("network.linear.",)),
    "Retrain": Settings({"max_epochs": 1, "optimizer": sgd(0.05)}, ("network.",)),
    "SaliencyMask": Settings(),
    "SalientRandomLabel": Settings({"rounds": 1, "optimizer": sgd(0.05)}, ("network.",)),
    "Scrub": Settings({"optimizer": sgd(0.01), "parameters": END}, (*LAST, "network.linear.")),
    "SelectiveDampening": Settings({"alpha": 0.5, "parameters": END}, (*LAST, "network.linear.")),
    "SynFlowPrune": Settings({"sparsity": 0.5, "rounds": 5, "parameters": END}, PRUNED),
    "TrainSurrogate": Settings({"held_out_samples": 30, "optimizer": sgd(0.05)}),
    "TransposeKernels": Settings({"parameters": END}, (f"{LAST[0]}0.conv",)),
}
# Bases, and what works on an ensemble alone, see tests/sisa.
BASES = {"AlternatingStage", "CachedStage", "RetrainShards", "UnlearningStage"}


def build(name):
    return getattr(stages, name)(**ROWS[name].arguments)


def chain_of(name):
    """The stage, and before it those that leave what it needs."""
    stage = build(name)
    before = [next(chain_of(n) for n in ROWS if set(build(n).provides) & {artifact}) for artifact in stage.requires]
    return [*(s for chain in before for s in chain), stage]


def rule_of(name):
    """What such a stage can forget."""
    return WholeClasses([3]) if any(stage.whole_classes for stage in chain_of(name)) else RandomFraction(0.1)


@pytest.fixture
def trained_resnet(trained_resnet):
    """With mnemonic codes, of which only the stage that forgets by them takes notice."""
    give_codes(trained_resnet, draw_codes(10, (1, 8, 8), torch.Generator().manual_seed(0)))
    return trained_resnet


def test_every_stage_has_a_row():
    assert set(ROWS) == set(stages.__all__) - BASES


@pytest.mark.parametrize("name", sorted(ROWS))
def test_stage(name, trained_resnet, make_data, spied, fresh, tmp_path):
    data = make_data(spied, rule_of(name))  # reading a test image would raise
    start = {key: value.clone() for key, value in trained_resnet.state_dict().items()}
    trained_resnet.network.conv1.weight.requires_grad_(False)
    found = {key: p.requires_grad for key, p in trained_resnet.named_parameters()}
    outcomes = []
    for _ in range(2):
        torch.rand(7)  # what was drawn before must not matter
        model, chain = copy.deepcopy(trained_resnet), chain_of(name)
        check_chain(chain)
        serving = data.serving
        results = run_chain(fresh, model, data, chain)
        outcomes.append(model.state_dict())
        assert data.serving == serving
        assert {key: p.requires_grad for key, p in model.named_parameters()} == found
        assert not any(module.training for module in model.modules())
        assert all(value.device.type == "cpu" for value in model.state_dict().values())
        assert all(p.grad is None for p in model.parameters())
        assert set(chain[-1].provides) <= set(chain[-1].artifacts)
        assert results[-1].name == name
        assert results[-1].work >= 0
        assert all(isinstance(v, float) for group in results[-1].summary.values() for v in group.values())
    assert all(torch.equal(outcomes[0][key], outcomes[1][key]) for key in start)
    changed = {key for key in start if not torch.equal(start[key], outcomes[0][key])}
    allowed = {key for key in start if key.startswith(ROWS[name].changes)} if ROWS[name].changes else set()
    assert changed <= allowed
    weights = {key for key, _ in trained_resnet.named_parameters()} & allowed
    assert len(changed & weights) >= 0.8 * len(weights)
    assert all(torch.isfinite(value).all() for value in outcomes[0].values())


@pytest.mark.parametrize("name", [name for name in sorted(ROWS) if build(name).max_epochs > 0])
def test_images_of_the_worker_path_give_the_same_weights(name, trained_resnet, make_data, fresh):
    states = []
    for resident in (True, False):
        model = copy.deepcopy(trained_resnet)
        run_chain(fresh, model, make_data(forget=rule_of(name), resident=resident), chain_of(name))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_failed_stage_leaves_the_model_as_it_was_found(trained_resnet, make_data, fresh):
    found = {key: p.requires_grad for key, p in trained_resnet.named_parameters()}
    no_weight = stages.MaskLearning(parameters=ParameterSelector(patterns=["network.bn1.*"]))
    with pytest.raises(stages.base.ChainError, match="no weight of a convolution"):
        run_chain(fresh, trained_resnet, make_data(), [no_weight])
    assert {key: p.requires_grad for key, p in trained_resnet.named_parameters()} == found
    assert not trained_resnet._forward_hooks
