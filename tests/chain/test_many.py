"""Chains on many models at once: each becomes what a chain of its own makes of it."""

import copy
import logging

import pytest
import torch
from helpers import sgd
from lightning.pytorch import Callback, seed_everything

from lightning_unlearn.chain.many import run_chain_many
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, KernelRegression, Neighbours, Surrogate
from lightning_unlearn.stages.class_weighted_fine_tune import ClassWeightedFineTune
from lightning_unlearn.stages.estimate_unseen import EstimateUnseen
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.gaussian_noise import GaussianNoise
from lightning_unlearn.stages.gradient_ascent import GradientAscent
from lightning_unlearn.stages.imitate_unseen import ImitateUnseen
from lightning_unlearn.stages.impair_repair import Repair
from lightning_unlearn.stages.kl_to_uniform import KLToUniform
from lightning_unlearn.stages.mask_learning import MaskLearning
from lightning_unlearn.stages.neg_grad_plus import NegGradPlus
from lightning_unlearn.stages.norm_decay import NormDecay
from lightning_unlearn.stages.train_surrogate import TrainSurrogate

SEEDS = (11, 2, 30)
END = ParameterSelector(parts=["last_stage", "head"])


def tuned(**kwargs):
    return FineTune(optimizer=sgd(0.05, momentum=0.9, weight_decay=5e-4), schedule="one_cycle", **kwargs)


def imitated(**kwargs):
    return [
        EstimateUnseen([Copies(2), Neighbours(3)], unseen_samples=20, bank_samples=100),
        NormDecay(0.5),
        ImitateUnseen(passes=2, forget_batch_size=16, optimizer=sgd(0.05, momentum=0.9), schedule="one_cycle", **kwargs),
    ]


METHODS = {
    "fine_tune": lambda: [tuned()],
    "cached_fine_tune": lambda: [tuned(parameters=END)],
    "uncached_part": lambda: [tuned(parameters=END, cache=False)],
    "imitate": imitated,
    "imitate_end": lambda: imitated(parameters=END),
    "imitate_copies": lambda: imitated(parameters=END, copies=2, cache=True, correction=0.5),
    "imitate_shared": lambda: [
        EstimateUnseen([KernelRegression(layer="last_stage")], unseen_samples=20, bank_samples=100, rank_samples=40),
        ImitateUnseen(passes=2, forget_batch_size=16, optimizer=sgd(0.05), parameters=END),
    ],
    "surrogate": lambda: [
        TrainSurrogate(held_out_samples=40, optimizer=sgd(0.05)),
        EstimateUnseen([Surrogate(), KernelRegression(layer="last_stage")], bank_samples=100, rank_samples=60),
        ImitateUnseen(passes=1, forget_batch_size=16, optimizer=sgd(0.1), unnormalised_rate=0.5),
    ],
    "weighted": lambda: [ClassWeightedFineTune(optimizer=sgd(0.05))],
    "repair": lambda: [KLToUniform(batch_size=16, optimizer=sgd(0.01)), Repair(batch_size=32, optimizer=sgd(0.05))],
    "two_parts": lambda: [NegGradPlus(max_retain_drop=None, optimizer=sgd(0.01), forget_batch_size=16)],
    "ascent": lambda: [GradientAscent(max_epochs=2, batch_size=16, optimizer=sgd(0.01))],
    "noise_then_tune": lambda: [GaussianNoise(std=0.3), GaussianNoise(std=0.1), tuned()],
    "selective": lambda: [MaskLearning(max_epochs=2, optimizer=lambda p: torch.optim.Adam(p, 3e-3)), NormDecay(0.3), tuned()],
}
ALONE = {"ascent"}


def originals(model):
    torch.manual_seed(0)
    models = [copy.deepcopy(model) for _ in SEEDS]
    for each in models:
        for parameter in each.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return models


def both(model, make_data, make_trainer, build, **kwargs):
    """Models and results of the chain on all at once, and one by one."""
    fresh = make_trainer(precision="64-true").fresh
    together, alone = originals(model), originals(model)
    many = run_chain_many(fresh, together, make_data(**kwargs), build, SEEDS)
    single = []
    for each, seed in zip(alone, SEEDS, strict=True):
        seed_everything(seed, verbose=False)
        single.append(run_chain(fresh, each, make_data(**kwargs), build()))
    return together, alone, many, single


@pytest.mark.parametrize("method", METHODS)
def test_each_model_becomes_what_it_becomes_alone(method, trained, make_data, make_trainer, caplog):
    with caplog.at_level(logging.DEBUG, "lightning_unlearn.chain.many"):
        together, alone, many, single = both(trained, make_data, make_trainer, METHODS[method])
    last = f"stage {len(single[0])}"
    assert any(last in record.message for record in caplog.records) == (method in ALONE)
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-9, atol=1e-9)
        assert not found.training
        assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in expected.parameters()]
    for found, expected in zip(many, single, strict=True):
        assert [(r.name, r.note) for r in found] == [(r.name, r.note) for r in expected]
        assert [r.work for r in found] == pytest.approx([r.work for r in expected])
        assert [r.summary.keys() for r in found] == [r.summary.keys() for r in expected]


@pytest.mark.parametrize("method", ["fine_tune", "imitate_end", "imitate_copies"])
def test_batchnorm_and_augmentation(method, trained_resnet, make_data, make_trainer):
    together, alone, _, _ = both(trained_resnet, make_data, make_trainer, METHODS[method], augmentation=Augmentation(1))
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-8, atol=1e-8)


def test_features_that_were_kept_in_less_precision(trained_resnet, make_data, make_trainer, caplog):
    fresh = make_trainer(precision="bf16-mixed").fresh
    together, alone, start = originals(trained_resnet), originals(trained_resnet)[0], originals(trained_resnet)[0]
    with caplog.at_level(logging.DEBUG, "lightning_unlearn.chain.many"):
        run_chain_many(fresh, together, make_data(), METHODS["imitate_shared"], SEEDS)
    assert "ImitateUnseen: one model after another" not in caplog.text
    seed_everything(SEEDS[0], verbose=False)
    run_chain(fresh, alone, make_data(), METHODS["imitate_shared"]())

    def moved(model):
        ends = [torch.cat([p.detach().flatten() for p in of.parameters()]) for of in (model, start)]
        return ends[0] - ends[1]

    assert float(torch.cosine_similarity(moved(together[0]), moved(alone), dim=0)) > 0.9


class Louder(FineTune):
    """Another objective than that of which `loss_of` speaks."""

    def objective(self, batch):
        return 2 * super().objective(batch)


class Doubled(FineTune):
    """Other logits than those of the network."""

    def logits(self, *batches):
        return 2 * super().logits(*batches)


class Watching(Callback):
    pass


@pytest.mark.parametrize(
    ("arguments", "build", "reason"),
    [
        ({}, lambda: [Louder(optimizer=sgd(0.01))], "no loss of logits alone"),
        ({}, lambda: [Doubled(optimizer=sgd(0.01))], "has its own logits"),
        ({}, lambda: [FineTune(optimizer=torch.optim.Adafactor)], "Adafactor"),
        ({"gradient_clip_val": 0.1}, lambda: [tuned()], "clips"),
        ({"callbacks": [Watching()]}, lambda: [tuned()], "Watching"),
    ],
)
def test_what_cannot_share_a_fit_runs_alone(arguments, build, reason, trained, make_data, make_trainer, caplog):
    fresh = make_trainer(**arguments).fresh
    together, alone = originals(trained), originals(trained)[0]
    with caplog.at_level(logging.DEBUG, "lightning_unlearn.chain.many"):
        run_chain_many(fresh, together, make_data(), build, SEEDS)
    assert reason in caplog.text
    seed_everything(SEEDS[0], verbose=False)
    run_chain(fresh, alone, make_data(), build())
    torch.testing.assert_close(together[0].state_dict(), alone.state_dict(), rtol=0, atol=0)


def test_the_data_are_served_as_before_and_a_seed_is_needed_for_every_model(trained, make_data, fresh):
    data = make_data()
    before = data.serving
    run_chain_many(fresh, originals(trained), data, lambda: [tuned()], SEEDS)
    assert data.serving == before
    with pytest.raises(ChainError, match="one seed per model"):
        run_chain_many(fresh, originals(trained), data, lambda: [tuned()], (1,))
