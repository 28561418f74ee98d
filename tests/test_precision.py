"""Mixed precision: every stage stays finite, and what is measured or estimated is float32 whatever the precision."""

import copy

import pytest
import torch
from helpers import sgd

from lightning_unlearn import stages
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, Neighbours, Surrogate
from lightning_unlearn.weights.mnemonic import draw_codes, give_codes

# Bases, and what works on an ensemble alone, see tests/sisa.
BASES = {"AlternatingStage", "CachedStage", "RetrainShards", "UnlearningStage"}
ESTIMATE = {"estimators": [Copies(2, (1,)), Neighbours(3)], "unseen_samples": 20}
MASK = {"max_epochs": 10, "penalty": 1e-4}
END = {"parameters": ParameterSelector(parts=["last_stage", "head"])}
CHAINS = {
    "AdversarialExamples": lambda: [stages.AdversarialExamples(steps=5)],
    "AdversarialFineTune": lambda: [stages.AdversarialExamples(steps=5), stages.AdversarialFineTune()],
    "BadTeacher": lambda: [stages.BadTeacher(max_epochs=2)],
    "ClassMeanTargets": lambda: [stages.ClassMeanTargets()],
    "ClassWeightedFineTune": lambda: [stages.ClassWeightedFineTune()],
    "ContrastiveRounds": lambda: [stages.ContrastiveRounds()],
    "DistilOriginal": lambda: [stages.KeepWeights(), stages.ResetLayers(last_blocks=1), stages.DistilOriginal()],
    "ErrorMaximisingNoise": lambda: [stages.ErrorMaximisingNoise(8, 4)],
    "EstimateUnseen": lambda: [stages.EstimateUnseen(**ESTIMATE)],
    "FineTune": lambda: [stages.FineTune(optimizer=sgd(0.05))],
    "FineTune, cached": lambda: [stages.FineTune(optimizer=sgd(0.05), cache=True, **END)],
    "FisherForgetting": lambda: [stages.FisherForgetting(samples=20, kind="model_mc")],
    "FisherNoise": lambda: [stages.FisherNoise(samples=50)],
    "GaussianNoise": lambda: [stages.GaussianNoise(0.1)],
    "GradientAscent": lambda: [stages.GradientAscent()],
    "ImitateUnseen": lambda: [stages.EstimateUnseen(**ESTIMATE), stages.ImitateUnseen(max_steps=4)],
    "ImitateUnseen, cached": lambda: [stages.EstimateUnseen(**ESTIMATE), stages.ImitateUnseen(max_steps=4, cache=True, **END)],
    "Impair": lambda: [stages.ErrorMaximisingNoise(8, 4), stages.Impair(noise_per_class=8, batch_size=16)],
    "Influence": lambda: [stages.Influence(samples=20, **END)],
    "Influence, cg": lambda: [stages.Influence(samples=20, curvature="ggn", solver="cg", form="removal", **END)],
    "IterativePrune": lambda: [stages.IterativePrune(0.5, 0.3, epochs=1, rewind_epoch=0)],
    "KLToUniform": lambda: [stages.KLToUniform()],
    "KeepWeights": lambda: [stages.KeepWeights()],
    "KeepZeros": lambda: [stages.MagnitudePrune(0.8), stages.KeepZeros(), stages.FineTune(optimizer=sgd(0.05))],
    "L1Sparse": lambda: [stages.L1Sparse(max_epochs=2, optimizer=sgd(0.05))],
    "MagnitudePrune": lambda: [stages.MagnitudePrune(0.8), stages.FineTune(optimizer=sgd(0.05))],
    "MaskLearning": lambda: [stages.MaskLearning(**MASK)],
    "MatchEntropy": lambda: [stages.KeepWeights(), stages.RedrawSmallest(0.5), stages.MatchEntropy(epochs=1)],
    "MnemonicForgetting": lambda: [stages.MnemonicForgetting()],
    "NegGradPlus": lambda: [stages.NegGradPlus()],
    "NormDecay": lambda: [stages.MaskLearning(exclusive=True, **MASK), stages.NormDecay(0.5)],
    "RandomLabel": lambda: [stages.RandomLabel()],
    "RandomTensorFineTune": lambda: [stages.RandomTensorFineTune(max_epochs=6)],
    "RedrawSmallest": lambda: [stages.RedrawSmallest(0.9)],
    "Relabel": lambda: [stages.EstimateUnseen(**ESTIMATE), stages.Relabel(max_steps=4)],
    "Repair": lambda: [stages.Repair()],
    "RepairReset": lambda: [stages.ResetByGradient(), stages.RepairReset(multipliers=[1.0])],
    "ResetByGradient": lambda: [stages.ResetByGradient()],
    "ResetLayers": lambda: [stages.ResetLayers(last_blocks=1)],
    "Retrain": lambda: [stages.Retrain(max_epochs=1, optimizer=sgd(0.05))],
    "SaliencyMask": lambda: [stages.SaliencyMask()],
    "SalientRandomLabel": lambda: [stages.SaliencyMask(), stages.SalientRandomLabel(rounds=1, optimizer=sgd(0.05))],
    "Scrub": lambda: [stages.Scrub()],
    "SelectiveDampening": lambda: [stages.SelectiveDampening(alpha=2.0)],
    "SynFlowPrune": lambda: [stages.SynFlowPrune(0.8, rounds=5)],
    "TrainSurrogate": lambda: [stages.TrainSurrogate(30), stages.EstimateUnseen([Surrogate()]), stages.ImitateUnseen()],
    "TransposeKernels": lambda: [stages.TransposeKernels()],
}


def test_every_stage_has_a_chain():
    assert {name.partition(",")[0] for name in CHAINS} == set(stages.__all__) - BASES


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_every_stage_is_finite_in_bf16_mixed(name, trained_resnet, make_data, make_trainer):
    chain = CHAINS[name]()
    rule = WholeClasses([3]) if any(stage.whole_classes for stage in chain) else RandomFraction(0.1)
    give_codes(trained_resnet, draw_codes(10, (1, 8, 8), torch.Generator().manual_seed(0)))
    run_chain(make_trainer(precision="bf16-mixed").fresh, trained_resnet, make_data(forget=rule), chain)
    for key, value in trained_resnet.state_dict().items():
        assert value.isfinite().all(), key
        assert value.dtype in (torch.float32, torch.int64)
    for group in chain[-1].artifacts:
        for value in chain[-1].artifacts[group].values():
            assert value.dtype in (torch.float32, torch.float64, torch.bool, torch.int64)
            assert value.isfinite().all()


def test_training_differs_in_bf16_mixed(trained_resnet, make_data, make_trainer):
    # Or the tests above would say nothing about mixed precision.
    states = []
    for precision in ("32-true", "bf16-mixed"):
        model = copy.deepcopy(trained_resnet)
        run_chain(make_trainer(precision=precision).fresh, model, make_data(), CHAINS["FineTune"]())
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    difference = float((states[0] - states[1]).norm() / states[0].norm())
    assert 1e-5 < difference < 0.1


@pytest.mark.parametrize("kind", ["empirical", "model", "model_mc"])
def test_the_fisher_is_float32_whatever_the_precision(kind, trained_resnet, make_data, make_trainer):
    found = []
    for precision in ("32-true", "bf16-mixed"):
        model, stage = copy.deepcopy(trained_resnet), stages.FisherNoise(samples=60, kind=kind)
        run_chain(make_trainer(precision=precision).fresh, model, make_data(), [stage])
        found.append((stage.artifacts["fisher"], model.state_dict()))
    (fisher, weights), (mixed, mixed_weights) = found
    largest = max(float(value.max()) for value in fisher.values())
    assert largest > 1e-6
    for name, value in fisher.items():
        assert mixed[name].dtype == torch.float32
        assert float((value - mixed[name]).abs().max()) <= 1e-6 * largest
        assert torch.allclose(weights[name], mixed_weights[name], rtol=1e-5, atol=1e-6)


def test_outputs_are_float32_whatever_the_precision(trained_resnet, make_data, make_trainer):
    data = make_data()
    plain = collect_outputs(make_trainer().fresh, trained_resnet, data)
    for precision in ("bf16-mixed", "64-true"):
        for part, outputs in collect_outputs(make_trainer(precision=precision).fresh, trained_resnet.float(), data).items():
            assert outputs.logits.dtype == torch.float32
            tolerance = 0.0 if precision == "bf16-mixed" else 1e-4
            assert (outputs.logits - plain[part].logits).abs().max() <= tolerance, part


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_pure_half_precision_is_refused(precision, make_trainer):
    with pytest.raises(ConfigError, match=f"precision is {precision}: .* Needed: 32-true"):
        make_trainer(precision=precision)
