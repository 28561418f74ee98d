import copy
import itertools
import json

import pytest
import torch
from helpers import sgd

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.chain.settings import settings_of
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ChainError, ConfigError, DataError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import KernelRegression
from lightning_unlearn.stages import (
    BadTeacher,
    EstimateUnseen,
    FineTune,
    GaussianNoise,
    ImitateUnseen,
    IterativePrune,
    MaskLearning,
    MatchEntropy,
    NormDecay,
    RandomLabel,
    Repair,
    UnlearningStage,
)


class Interrupted(FineTune):
    """Ends at its second step, as long as it is told to."""

    def __init__(self, fails, **kwargs):
        super().__init__(**kwargs)
        self._fails = fails

    def training_step(self, batch, batch_idx):
        if self._fails and batch_idx == 2:
            raise OSError("the disk is gone")
        return super().training_step(batch, batch_idx)


class WithoutView(UnlearningStage):
    """Forgets to say what it trains on."""


class WithoutObjective(UnlearningStage):
    """Forgets to say what it minimises."""

    view = "retain"


class WithoutConstructor(FineTune):
    """Forgets the constructor of its base."""

    def __init__(self):
        torch.nn.Module.__init__(self)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (lambda: [], "The chain is empty"),
        (lambda: ["FineTune"], "stages\\[0\\] is a str; needed: an UnlearningStage"),
        (lambda: [FineTune()] * 2, "stages\\[1\\] \\(FineTune\\) is in the chain twice"),
        (lambda: [ImitateUnseen()], "needs the artifact 'targets', and the stages before it leave none"),
        (lambda: [MaskLearning(), ImitateUnseen()], "leave \\['mask'\\]"),
        (lambda: [ImitateUnseen(), EstimateUnseen()], "needs the artifact 'targets'"),
        (lambda: [NormDecay(use_mask=True)], "needs the artifact 'mask'"),
        (lambda: [WithoutView()], "has the view None; needed: one of train, retain"),
        (lambda: [FineTune(), WithoutObjective()], r"stages\[1\] \(WithoutObjective\) trains, so it must define `objective`"),
        (lambda: [WithoutConstructor()], r"has not run the constructor of UnlearningStage. Call super\(\).__init__"),
    ],
)
def test_chains_that_cannot_run_are_refused(chain, message):
    with pytest.raises(ChainError, match=message):
        check_chain(chain())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "deepspeed_stage_2", "model_parallel"])
def test_strategies_that_lose_weights_are_refused(strategy):
    with pytest.raises(ChainError, match=f"Strategy '{strategy}' cannot be used"):
        check_chain([FineTune()], strategy)


@pytest.mark.parametrize("build", [BadTeacher, ImitateUnseen, IterativePrune, MatchEntropy, RandomLabel, Repair])
def test_gradients_are_not_accumulated_where_batches_are_counted(build):
    stages = [EstimateUnseen(), build()]
    check_chain(stages)
    with pytest.raises(ChainError, match=rf"{build.__name__}: accumulate_grad_batches is 2; needed: 1"):
        check_chain(stages, "auto", 2)
    check_chain([FineTune()], "auto", 2)


def test_chains_that_can_run_pass():
    check_chain([MaskLearning(), NormDecay(use_mask=True), FineTune()], "ddp")
    check_chain([EstimateUnseen(), NormDecay(), ImitateUnseen()])


@pytest.mark.parametrize("arguments", [{"max_epochs": -1}, {"max_steps": 0}])
def test_lengths_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ChainError, match="needed: 0 or more epochs"):
        FineTune(**arguments)


def test_a_selection_that_fits_nothing_is_refused(trained, make_data, fresh):
    with pytest.raises(ChainError, match=r"FineTune: .*layer9"):
        run_chain(fresh, trained, make_data(), [FineTune(parameters=ParameterSelector(patterns=["layer9.*"]))])


def chain(fails):
    return [
        MaskLearning(max_epochs=10, parameters=ParameterSelector(parts=["head"])),
        NormDecay(0.5, use_mask=True, parameters=ParameterSelector(parts=["head"])),
        Interrupted(fails, optimizer=sgd(0.05, momentum=0.9)),
        GaussianNoise(0.01),
    ]


def test_a_chain_goes_on_at_the_unfinished_stage(trained, make_data, fresh, tmp_path):
    whole = copy.deepcopy(trained)
    results = run_chain(fresh, whole, make_data(), chain(False))
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, copy.deepcopy(trained), make_data(), chain(True), tmp_path)
    assert sorted(p.name for p in tmp_path.glob("stage*.ckpt")) == ["stage0.ckpt", "stage1.ckpt"]
    written = (tmp_path / "stage0.ckpt").stat().st_mtime_ns
    torch.rand(5)
    again = copy.deepcopy(trained)
    resumed = run_chain(fresh, again, make_data(), chain(False), tmp_path)
    assert (tmp_path / "stage0.ckpt").stat().st_mtime_ns == written
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    assert [(r.name, r.work, r.summary) for r in resumed] == [(r.name, r.work, r.summary) for r in results]


@pytest.mark.parametrize(
    "left", ["", '{"name": "MaskLearning", "sec', "{}", "[]", '{"name": "x", "seconds": 1, "work": 1, "a": 1}', None]
)
def test_a_damaged_result_of_a_stage_is_named(trained, make_data, fresh, tmp_path, left):
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, copy.deepcopy(trained), make_data(), chain(True), tmp_path)
    file = tmp_path / "stage0.json"
    file.unlink() if left is None else file.write_text(left)
    with pytest.raises(ConfigError, match=r"stage0\.json cannot be read \(.*Remove the stage files \(stage\*\) in"):
        run_chain(fresh, copy.deepcopy(trained), make_data(), chain(False), tmp_path)
    for path in tmp_path.glob("stage*"):
        path.unlink()
    assert len(run_chain(fresh, copy.deepcopy(trained), make_data(), chain(False), tmp_path)) == 4


def test_a_chain_goes_on_where_features_were_shared(trained_resnet, make_data, fresh, tmp_path):
    end = ParameterSelector(parts=["last_stage", "head"])

    def build(fails):
        estimate = EstimateUnseen([KernelRegression(layer="last_stage")], bank_samples=100)
        teach = ImitateUnseen(max_steps=4, optimizer=sgd(0.05), parameters=end, cache=True)
        return [estimate, Interrupted(fails, optimizer=sgd(0.05), parameters=end), teach]

    whole, again = copy.deepcopy(trained_resnet), copy.deepcopy(trained_resnet)
    results = run_chain(fresh, whole, make_data(), build(False))
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, copy.deepcopy(trained_resnet), make_data(), build(True), tmp_path)
    resumed = run_chain(fresh, again, make_data(), build(False), tmp_path)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    # What the first stage had computed is gone with its process, and computed again: the bank, and the forgotten samples.
    assert resumed[1].work > results[1].work
    assert resumed[2].work > results[2].work


class Listed(FineTune):
    """A user's stage with an argument that is a list."""

    def __init__(self, rates):
        super().__init__()
        self.rates = rates


def test_lists_among_a_stages_arguments_are_settings(trained, make_data, fresh, tmp_path):
    assert settings_of([Listed([1, 2])]) != settings_of([Listed([1, 3])])
    stage = Listed([1, 2])
    begun = settings_of([stage])
    run_chain(fresh, trained, make_data(), [stage])
    assert settings_of([stage]) == begun


def test_a_folder_of_another_chain_is_refused(trained, make_data, make_trainer, fresh, digits, tmp_path):
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, copy.deepcopy(trained), make_data(), chain(True), tmp_path)
    other = chain(False)
    other[1] = NormDecay(0.4, use_mask=True, parameters=ParameterSelector(parts=["head"]))
    changed = copy.deepcopy(trained)
    torch.nn.init.zeros_(changed.network.fc.bias)
    rest = make_data()
    rest.draw(forget_seed=1)
    clipped = make_trainer(gradient_clip_val=0.1).fresh
    # The same samples are forgotten and retained, and others are unseen.
    unseen = make_data(unseen=VisionData("other", digits.test, digits.test, digits.classes, digits.mean, digits.std))
    for trainer, model, data, stages, differing in (
        (fresh, trained, make_data(), other, "stages"),
        (fresh, trained, make_data(), chain(False)[:3], "stages"),
        (fresh, trained, rest, chain(False), "samples"),
        (fresh, trained, unseen, chain(False), "samples"),
        (fresh, trained, make_data(batch_size=16), chain(False), "batches"),
        (fresh, changed, make_data(), chain(False), "weights"),
        (clipped, trained, make_data(), chain(False), "arguments of the Trainer"),
    ):
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConfigError, match=f"holds the beginning of another run: its {differing}"):
            run_chain(trainer, model, data, stages, tmp_path)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_an_error_leaves_model_and_data_as_they_were_found(trained, make_data, fresh):
    data, trainable = make_data(), {name: p.requires_grad for name, p in trained.named_parameters()}
    serving = data.serving
    head = ParameterSelector(parts=["head"])
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, trained, data, [Interrupted(True, parameters=head)])
    assert data.serving == serving
    assert {name: p.requires_grad for name, p in trained.named_parameters()} == trainable
    assert not any(module._forward_hooks for module in trained.modules())
    assert not any(module.training for module in trained.modules())


def test_nothing_to_forget_ends_before_the_first_step(trained, make_data, fresh):
    before = trained.network.fc.weight.clone()
    with pytest.raises(DataError, match="there is no forget rule"):
        run_chain(fresh, trained, make_data(forget=None), [MaskLearning()])
    assert torch.equal(trained.network.fc.weight, before)


def test_stages_of_one_kind_have_their_own_noise_and_order(trained, make_data, fresh, tmp_path):
    seen = []

    class Recording(FineTune):
        def training_step(self, batch, batch_idx):
            seen.append(batch.index.tolist())
            return super().training_step(batch, batch_idx)

    run_chain(fresh, trained, make_data(), [Recording(max_steps=1), Recording(max_steps=1)])
    assert seen[0] != seen[1]


def test_two_stages_of_noise_add_other_noise(trained, make_data, fresh):
    weights = [copy.deepcopy(trained.network.fc.weight.data)]

    class Recorded(GaussianNoise):
        def on_fit_end(self):
            weights.append(self.classifier.network.fc.weight.detach().clone())

    run_chain(fresh, trained, make_data(), [Recorded(0.1, relative=False), Recorded(0.1, relative=False)])
    first, second = (after - before for before, after in itertools.pairwise(weights))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.3


@pytest.mark.parametrize("seed", [None, 0])
def test_two_stages_of_one_kind_augment_in_other_ways_and_have_other_dropout(seed, trained, make_data, fresh):
    images, masks = [], []

    class Recording(FineTune):
        def on_fit_start(self):
            super().on_fit_start()
            images.append({})
            masks.append([])

        def training_step(self, batch, batch_idx):
            images[-1] |= dict(zip(batch.index.tolist(), batch.input.clone(), strict=True))
            masks[-1] += torch.rand(20).tolist()
            return super().training_step(batch, batch_idx)

    run_chain(fresh, trained, make_data(seed=seed, augmentation=Augmentation(2)), [Recording(cache=False) for _ in range(2)])
    first, second = images
    assert first.keys() == second.keys()
    assert sum(torch.equal(first[index], second[index]) for index in first) < 0.5 * len(first)
    assert not set(masks[0]) & set(masks[1])


def test_results_are_plain(trained, make_data, fresh, tmp_path):
    run_chain(fresh, trained, make_data(), [NormDecay()], tmp_path)
    record = json.loads((tmp_path / "stage0.json").read_text())
    assert record["name"] == "NormDecay"
    assert record["work"] == 0
    saved = torch.load(tmp_path / "stage0.ckpt", weights_only=True)
    assert {"state_dict", "artifacts"} <= set(saved)
    assert isinstance(Artifacts(saved["artifacts"]), Artifacts)
