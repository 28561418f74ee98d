import copy
import logging

import pytest
import torch
from helpers import assert_same, sgd
from lightning.pytorch import seed_everything
from torch import nn

from lightning_unlearn.chain.many import run_chain_many
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.forget import RandomCount
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, KernelRegression
from lightning_unlearn.stages import (
    DistilOriginal,
    EstimateUnseen,
    FineTune,
    ImitateUnseen,
    MaskLearning,
    MatchEntropy,
    NormDecay,
)

END = ParameterSelector(parts=["last_stage", "head"])


def fine_tune(cache):
    return [FineTune(max_epochs=2, optimizer=sgd(0.05, momentum=0.9), parameters=END, cache=cache)]


def imitate(cache):
    last = ImitateUnseen(max_steps=8, optimizer=sgd(0.05), parameters=END, cache=cache)
    return [EstimateUnseen([Copies(2, (1,))]), last]


@pytest.mark.parametrize("chain", [fine_tune, imitate])
@pytest.mark.parametrize("network", ["trained", "trained_resnet"])
def test_cached_features_give_the_same_weights_for_less_work(chain, network, request, make_data, fresh):
    start, outcomes, work = request.getfixturevalue(network), [], []
    for cache in (True, False):
        model = copy.deepcopy(start)
        results = run_chain(fresh, model, make_data(), chain(cache))
        outcomes.append(model.state_dict())
        work.append(results[-1].work)
    changed = [name for name, value in start.state_dict().items() if not torch.equal(value, outcomes[0][name])]
    assert changed
    for name, value in outcomes[0].items():
        torch.testing.assert_close(value, outcomes[1][name], rtol=1e-5, atol=1e-5)
    assert work[0] < work[1]


def test_the_work_is_that_of_one_pass_and_of_the_end(trained_resnet, make_data, fresh):
    data = make_data()
    n = len(data.part("retain")[1])
    stage = fine_tune(True)[0]
    share = {}
    stage.on_train_start = lambda: share.update(tail=stage.cached.share)
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    assert 0 < share["tail"] < 1
    # One forward pass of the beginning; two epochs of forward (1) and backward (2) through the end.
    assert result.work == pytest.approx(n * (1 - share["tail"]) + 2 * 3 * n * share["tail"])
    # Without a cache the beginning runs forward in every step; backward it never runs, as it is frozen.
    [whole] = run_chain(fresh, trained_resnet, data, fine_tune(False))
    assert whole.work == pytest.approx(2 * n * (1 + 2 * share["tail"]))


@pytest.mark.parametrize("exclusive", [False, True])
def test_scores_learnt_on_cached_features_are_those_on_images(exclusive, trained_resnet, make_data, fresh):
    masks, courses = [], []
    for cache in (True, False):
        stage = MaskLearning(max_epochs=8, exclusive=exclusive, cache=cache, penalty=1e-4)
        scores = {}
        stage.on_train_epoch_end = lambda scores=scores, stage=stage: scores.update({
            k: v.detach().clone() for k, v in stage.scores.named_parameters()
        })
        run_chain(fresh, copy.deepcopy(trained_resnet), make_data(), [stage])
        masks.append(scores)
        courses.append(stage._course)
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert courses[0] == courses[1]
    assert list(courses[0].values())[-1] < 1


@pytest.mark.parametrize("chain", [fine_tune, imitate])
def test_as_many_augmented_copies_as_passes_change_nothing(chain, trained_resnet, make_data, fresh):
    """Fewer copies are seen again in turn, for less work."""
    outcomes, work = [], []
    for cache, copies in ((False, 0), (True, 8), (True, 1)):
        model = copy.deepcopy(trained_resnet)
        stages = chain(cache)
        stages[-1].copies = copies
        results = run_chain(fresh, model, make_data(augmentation=Augmentation(2)), stages)
        outcomes.append(model.state_dict())
        work.append(results[-1].work)
    for name, value in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], value, rtol=1e-5, atol=1e-5)
    assert any(not torch.allclose(outcomes[2][name], value, rtol=1e-3) for name, value in outcomes[0].items())
    assert work[2] < work[1]


def test_copies_cover_accumulated_batches(trained_resnet, make_data, make_trainer):
    """Four steps of two batches each, which is more than one pass."""
    outcomes = []
    for cache, copies in ((False, 0), (True, 8)):
        model, [stage] = copy.deepcopy(trained_resnet), fine_tune(cache)
        stage.max_epochs, stage.max_steps, stage.copies = 3, 4, copies
        fresh = make_trainer(accumulate_grad_batches=2).fresh
        run_chain(fresh, model, make_data(augmentation=Augmentation(2), batch_size=64), [stage])
        outcomes.append(model.state_dict())
    for name, value in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", [DistilOriginal, MatchEntropy])
def test_a_teacher_that_looks_at_augmented_images_keeps_them(stage, trained_resnet, make_data, fresh):
    data = make_data(augmentation=Augmentation(2))
    run_chain(fresh, trained_resnet, data, [stage(copies=2, parameters=END)])
    with pytest.raises(ChainError, match="features cannot be cached: images are augmented, and its teacher looks at them"):
        run_chain(fresh, trained_resnet, data, [stage(copies=2, cache=True, parameters=END)])


def test_the_work_of_copies_is_that_of_so_many_passes(trained_resnet, make_data, fresh):
    data = make_data(augmentation=Augmentation(2))
    n = len(data.part("retain")[1])
    [stage] = fine_tune(True)
    stage.max_epochs, stage.copies, share = 5, 2, {}
    stage.on_train_start = lambda: share.update(tail=stage.cached.share)
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    assert result.work == pytest.approx(2 * n * (1 - share["tail"]) + 5 * 3 * n * share["tail"])


def test_features_are_cached_only_where_that_changes_nothing(trained_resnet, make_data, fresh):
    whole = ParameterSelector()
    with pytest.raises(ChainError, match="features cannot be cached: images are augmented, and copies is 0"):
        run_chain(fresh, trained_resnet, make_data(augmentation=Augmentation(1)), fine_tune(True))
    with pytest.raises(ChainError, match="no single tensor leads from a frozen beginning"):
        run_chain(fresh, trained_resnet, make_data(), [FineTune(parameters=whole, cache=True)])
    # Left to itself, the stage does without.
    run_chain(fresh, trained_resnet, make_data(augmentation=Augmentation(1)), fine_tune(None))
    run_chain(fresh, trained_resnet, make_data(), [FineTune(parameters=whole)])


def test_the_frozen_beginning_runs_in_eval_mode(make_data, fresh):
    class Noisy(nn.Module):
        """Dropout before what is trained."""

        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5))
            self.fc = nn.Linear(16, 10)

        def forward(self, x):
            return self.fc(self.stem(x))

    torch.manual_seed(0)
    start, outcomes = Noisy(), []
    for cache in (True, False):
        model = copy.deepcopy(start)
        stage = FineTune(optimizer=sgd(0.1), parameters=ParameterSelector(parts=["head"]), cache=cache)
        run_chain(fresh, model, make_data(), [stage])
        outcomes.append(model.fc.weight)
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)


def test_features_that_take_too_much_memory_are_not_cached(trained_resnet, make_data, fresh, monkeypatch, caplog):
    data, sizes = make_data(), []

    class Watched(FineTune):
        def on_train_start(self):
            sizes.append(None if self.cached is None else sum(table.rows.nbytes for table in self._features))

    def run(cache):
        run_chain(fresh, copy.deepcopy(trained_resnet), data, [Watched(max_steps=1, parameters=END, cache=cache)])

    run(None)
    monkeypatch.setattr("lightning_unlearn.frozen_beginning.CACHE_LIMIT", sizes[0])
    run(True)
    monkeypatch.setattr("lightning_unlearn.frozen_beginning.CACHE_LIMIT", sizes[0] - 1)
    with caplog.at_level("INFO", logger="lightning_unlearn"):
        run(None)
    assert sizes == [sizes[0], sizes[0], None]
    assert "features are not cached: they would take" in caplog.text
    with pytest.raises(ChainError, match="features cannot be cached: they would take"):
        run(True)


def estimate_and_teach():
    regression = KernelRegression(ridge=0.3, layer="last_stage")
    stages = [EstimateUnseen([regression], bank_samples=150), ImitateUnseen(max_steps=6, optimizer=sgd(0.05), parameters=END)]
    return stages[:1], stages[1:]


@pytest.mark.parametrize("network", ["trained", "trained_resnet"])
def test_estimates_and_weights_do_not_depend_on_who_computed_the_features(network, request, make_data, fresh, monkeypatch):
    start, weights, targets = request.getfixturevalue(network), [], []
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr("lightning_unlearn.imitation.guesses._beginning", lambda stage, bank: None)
        model = copy.deepcopy(start)
        estimate, teach = estimate_and_teach()
        run_chain(fresh, model, make_data(), estimate + teach)
        weights.append(model.state_dict())
        targets.append(estimate[0].artifacts["targets"]["probabilities"])
    torch.testing.assert_close(*targets, rtol=1e-4, atol=1e-6)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-5)


def test_features_are_computed_once_in_a_chain(trained_resnet, make_data, fresh):
    data = make_data()
    counts = {part: len(data.part(part)[1]) for part in ("forget", "retain", "unseen")}
    estimate, teach = estimate_and_teach()
    share, taught = {}, []
    teach[0].on_train_start = lambda: share.update(tail=teach[0].cached.share)
    teach[0].on_train_batch_start = lambda batch, i: taught.append(sum(len(part.index) for part in batch.values()))
    first, second = run_chain(fresh, trained_resnet, data, estimate + teach)
    tail = share["tail"]
    # Unseen samples are answered, which takes the end too; of forgotten ones and the bank features are enough.
    assert first.work == pytest.approx((1 - tail) * (counts["forget"] + 150) + counts["unseen"])
    assert second.work == pytest.approx((1 - tail) * (counts["retain"] - 150) + 3 * tail * sum(taught))


def test_features_of_other_weights_are_not_taken(trained_resnet, make_data, fresh):
    outcomes = []
    for cache in (True, False):
        model = copy.deepcopy(trained_resnet)
        first, last = fine_tune(True), [FineTune(max_steps=3, optimizer=sgd(0.05), parameters=END, cache=cache)]
        decay = NormDecay(0.5, parameters=ParameterSelector(parts=["whole"]))
        run_chain(fresh, model, make_data(), [*first, decay, *last])
        outcomes.append(model.state_dict())
    for name, value in outcomes[0].items():
        torch.testing.assert_close(value, outcomes[1][name], rtol=1e-4, atol=1e-5)


class DropsFirst(nn.Module):
    """The head holds what is random and stands before its weights."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 10))

    def forward(self, x):
        return self.classifier(self.stem(x))


def test_features_behind_active_dropout_are_not_cached(make_data, fresh):
    torch.manual_seed(0)
    head = ParameterSelector(parts=["head"])
    with pytest.raises(ChainError, match="features cannot be cached: dropout or a norm in train mode"):
        run_chain(fresh, DropsFirst(), make_data(), [FineTune(parameters=head, cache=True)])
    run_chain(fresh, DropsFirst(), make_data(), [FineTune(parameters=head)])


def test_nothing_is_kept_once_the_chain_has_ended(trained_resnet, make_data, fresh):
    [stage] = fine_tune(True)
    known = []
    stage.on_train_end = lambda: known.append(stage.artifacts._features is not None)
    run_chain(fresh, trained_resnet, make_data(), [stage])
    assert known == [True]
    assert stage.artifacts._features is None


def test_a_fit_that_failed_leaves_no_features(trained_resnet, make_data, fresh):
    class Fails(FineTune):
        fails = True

        def objective(self, batch):
            if self.fails:
                raise RuntimeError("on purpose")
            return super().objective(batch)

    stage, other = Fails(parameters=END, cache=True), copy.deepcopy(trained_resnet)
    with pytest.raises(RuntimeError, match="on purpose"):
        run_chain(fresh, trained_resnet, make_data(), [stage])
    Fails.fails = False
    # Another network, whose beginning gives other features.
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    again = copy.deepcopy(other)
    run_chain(fresh, other, make_data(), [stage])
    run_chain(fresh, again, make_data(), [Fails(parameters=END, cache=True)])
    assert_same(other, again, rtol=0, atol=0)


def test_masks_of_both_parts_need_features_of_as_many_retained_samples(trained_resnet, make_data, fresh):
    data = make_data(forget=RandomCount(10))
    stage = MaskLearning(exclusive=True, max_epochs=10, penalty=1e-3, cache=True)
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    share = stage.work.backward_share
    # Each of the 20 samples once through the beginning, and ten times through the end and back.
    assert result.work == pytest.approx(20 * (1 - share) + 10 * 20 * 3 * share, rel=1e-6)


def test_the_limit_counts_all_models_that_run_at_once(trained_resnet, make_data, fresh, monkeypatch, caplog):
    data = make_data()
    monkeypatch.setattr("lightning_unlearn.frozen_beginning.CACHE_LIMIT", 2 * 270 * 8 * 4 * 4 * 4)
    caplog.set_level(logging.INFO, "lightning_unlearn")
    models = [copy.deepcopy(trained_resnet) for _ in range(4)]
    run_chain_many(fresh, models[:2], data, lambda: [FineTune(parameters=END)], [0, 1])
    assert "not cached" not in caplog.text
    # Four at once would not fit: one after another, as each alone.
    alone, cached = copy.deepcopy(models[3]), lambda: [FineTune(parameters=END, cache=True)]
    seed_everything(3)
    [expected] = run_chain(fresh, alone, data, cached())
    results = run_chain_many(fresh, models, data, cached, [0, 1, 2, 3])
    assert_same(models[3], alone, rtol=0, atol=0)
    assert results[3][0].work == expected.work
    assert "not cached" not in caplog.text
