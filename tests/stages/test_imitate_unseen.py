"""Imitating the unseen: what is estimated, and that it works where the truth is known."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import ForgetRule, RandomCount, Selection, WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import log_odds, strike_classes
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, KernelRegression, Neighbours, OwnAnswer
from lightning_unlearn.stages import EstimateUnseen, FineTune, ImitateUnseen, NormDecay, Relabel


def logits(model, data, part):
    with torch.no_grad():
        batches = [(model(b.input), b.target) for b in data.evaluation_loader(part)]
    return torch.cat([a for a, _ in batches]), torch.cat([b for _, b in batches])


def accuracy(model, data, part):
    answers, targets = logits(model, data, part)
    return 100 * float((answers.argmax(1) == targets).float().mean())


def test_forgotten_labels_become_as_known_as_unseen_ones_and_fine_tuning_does_not_do_that(memorising, fresh):
    model, data = memorising
    before = {part: accuracy(model, data, part) for part in ("forget", "retain", "unseen")}
    assert before["forget"] > 95 > before["unseen"] + 30  # a third of the labels is wrong: known by heart or not at all
    imitated, tuned = copy.deepcopy(model), copy.deepcopy(model)
    chain = [
        EstimateUnseen([Copies(8, (1,), flip=False), Neighbours(10)], unseen_samples=100),
        ImitateUnseen(passes=40, optimizer=sgd(0.05, momentum=0.9)),
    ]
    run_chain(fresh, imitated, data, chain)
    run_chain(fresh, tuned, data, [FineTune(max_epochs=5, optimizer=sgd(0.02, momentum=0.9))])
    assert abs(accuracy(imitated, data, "forget") - before["unseen"]) <= 10
    assert accuracy(imitated, data, "retain") > 90
    assert accuracy(tuned, data, "forget") > before["unseen"] + 15


@pytest.mark.parametrize(
    "estimators", [[Copies(3, (1,))], [Neighbours(5)], [KernelRegression()], [Copies(3, (1,)), Neighbours(5)]]
)
def test_targets_are_distributed_as_unseen_samples(estimators, memorising, fresh):
    model, data = memorising
    stage = EstimateUnseen(estimators, unseen_samples=50)
    run_chain(fresh, model, data, [stage])
    targets = stage.artifacts["targets"]
    samples, index = data.part("forget")
    assert torch.equal(targets["index"], index)
    torch.testing.assert_close(targets["probabilities"].sum(1), torch.ones(len(index), dtype=torch.float64))
    # Believed in as unseen samples are: the largest distance of the two distribution functions is below the 1 % point of
    # the Kolmogorov-Smirnov test.
    answers, labels = logits(model, data, "unseen")
    unseen, found = log_odds(answers.double().softmax(1), labels), log_odds(targets["probabilities"], samples.targets[index])
    places = torch.cat([unseen, found])
    shares = [(values <= places[:, None]).double().mean(1) for values in (unseen, found)]
    assert (shares[0] - shares[1]).abs().max() < 1.63 * (1 / len(unseen) + 1 / len(found)) ** 0.5
    assert len(found.unique()) > 0.7 * len(found)
    shares = [value for name, value in stage.summary()["estimate"].items() if name.startswith("weight ")]
    assert len(shares) == len(estimators)
    assert sum(shares) == pytest.approx(1)


def test_whole_classes_are_struck(trained, make_data, fresh):
    data = make_data(forget=WholeClasses([3, 5]))
    stage = EstimateUnseen()
    run_chain(fresh, trained, data, [stage])
    answers, _ = logits(trained, data, "forget")
    expected = answers.double().softmax(1)
    expected[:, [3, 5]] = 0
    torch.testing.assert_close(stage.artifacts["targets"]["probabilities"], expected / expected.sum(1, keepdim=True))
    assert stage.summary()["estimate"]["forget/acc"] == 0


def test_what_guesses_for_whole_classes(trained, make_data, fresh):
    data = make_data(forget=WholeClasses([3]))
    copies, near = Copies(count=2, shifts=[1], flip=False), KernelRegression(ridge=0.3)
    single = []
    for estimators in ([copies], [near], [copies, near]):
        stage = EstimateUnseen(class_estimators=estimators, class_bank_samples=150)
        run_chain(fresh, trained, data, [stage])
        single.append(stage.artifacts["targets"]["probabilities"])
    torch.testing.assert_close(single[2], (single[0] + single[1]) / 2)
    assert not torch.allclose(single[0], single[1])
    assert bool((single[2][:, 3] == 0).all())
    with pytest.raises(ChainError, match="class_bank_samples 0"):
        EstimateUnseen(class_bank_samples=0)


class Named(ForgetRule):
    """Samples by their number."""

    def __init__(self, indices):
        self.indices = indices

    def select(self, samples, candidates, seed, class_names):
        return Selection(self.indices, [])

    def describe(self):
        return "some"


def test_a_class_that_goes_with_others_is_struck_from_all_targets(trained, make_data, fresh):
    data = make_data()
    samples, retain = data.part("retain")
    of_class = {c: retain[samples.targets[retain] == c] for c in (3, 5)}
    all_of_three = torch.cat([index[samples.targets[index] == 3] for index in (retain, data.part("forget")[1])])
    data = make_data(forget=Named(torch.cat([all_of_three, of_class[5][:5]]).sort().values))
    original = copy.deepcopy(trained)
    stage, teach = (
        EstimateUnseen([OwnAnswer()], rank_samples=50),
        ImitateUnseen(max_steps=2, margin_weight=0.3, optimizer=sgd(0.01), cache=False),
    )
    run_chain(fresh, trained, data, [stage, teach])
    targets = stage.artifacts["targets"]
    # The others have the log-odds of unseen samples as they are without that class: quantiles at 51 places.
    answers, labels = logits(original, data, "unseen")
    truth = strike_classes(answers[labels != 3].double().softmax(1), torch.tensor([3]))
    places = torch.quantile(log_odds(truth, labels[labels != 3]), (torch.arange(51) + 0.5).double() / 51)
    left = ~targets["class_gone"]
    found = log_odds(targets["probabilities"][left], samples.targets[targets["index"][left]])
    assert float((found[:, None] - places).abs().min(1).values.max()) < 1e-4
    assert targets["class_gone"].tolist() == (samples.targets[targets["index"]] == 3).tolist()
    assert bool((targets["probabilities"][:, 3] == 0).all())
    torch.testing.assert_close(targets["probabilities"].sum(1), torch.ones(len(targets["index"]), dtype=torch.float64))
    assert bool(torch.isfinite(torch.cat([p.flatten() for p in trained.parameters()])).all())


def test_unseen_samples_of_a_class_that_the_network_does_not_know_are_not_looked_at(trained, make_data, fresh):
    """As after an earlier request for that class: its answers to them are no answers to samples of a known class."""
    with torch.no_grad():
        trained.network.fc.bias[3] -= 50.0
    data = make_data()
    samples, retain = data.part("retain")
    rule = Named(torch.cat([retain[samples.targets[retain] == 3], data.part("forget")[1]]).unique())
    odds = []
    for strange in (50.0, 90.0):
        model = copy.deepcopy(trained)
        with torch.no_grad():
            model.network.fc.bias[3] -= strange
        stage = EstimateUnseen([Copies(2, (1,)), Neighbours(5)], unseen_samples=20)
        data = make_data(forget=rule)
        run_chain(fresh, model, data, [stage])
        targets = stage.artifacts["targets"]
        known = ~targets["class_gone"]
        odds.append(log_odds(targets["probabilities"], samples.targets[targets["index"]])[known])
        unseen, index = data.part("unseen")
        assert 3 in unseen.targets[index]
    torch.testing.assert_close(*odds)
    assert odds[0].min() > -20


@pytest.mark.parametrize(("divergence_weight", "margin_weight"), [(1.0, 0.0), (0.2, 0.5)])
def test_the_loss_is_the_mean_over_all_samples(divergence_weight, margin_weight, trained, make_data, fresh):
    """KL and Huber's loss on log-odds for forgotten samples, cross-entropy for retained ones."""
    found = []

    class Watched(ImitateUnseen):
        def objective(self, batch):
            loss = super().objective(batch)
            forget, retain = batch["forget"], batch["retain"]
            targets = self.artifacts["targets"]
            rows = [targets["probabilities"][targets["index"].tolist().index(int(i))] for i in forget.index]
            p, q = torch.stack(rows), self.classifier(forget.input).double().log_softmax(1)
            expected = divergence_weight * (p * (p.clamp(min=1e-30).log() - q)).sum()
            expected += F.cross_entropy(self.classifier(retain.input), retain.target, reduction="sum")
            for row, answer, label in zip(p, q.exp(), forget.target.tolist(), strict=True):
                wanted, given = (float(torch.logit(r.detach()[label])) for r in (row, answer))
                miss = abs(wanted - given)
                expected += margin_weight * (miss**2 / 2 if miss < 4 else 4 * (miss - 2))
            found.append((loss.item(), expected.item() / (len(forget.index) + len(retain.index))))
            return loss

    weights = {"divergence_weight": divergence_weight, "margin_weight": margin_weight}
    chain = [EstimateUnseen([Copies(2, (1,))]), Watched(max_steps=4, forget_batch_size=5, cache=False, **weights)]
    run_chain(fresh, trained, make_data(), chain)
    assert len(found) == 4
    for loss, expected in found:
        assert loss == pytest.approx(expected, rel=1e-3)


def test_log_odds_of_the_labels_are_learnt_where_kl_sees_no_difference(memorising, fresh):
    """One in a thousand and one in a million are the same to KL; an attacker tells them apart."""
    model, data = memorising
    misses = {}
    for margin_weight in (0.0, 0.3):
        imitated = copy.deepcopy(model)
        arguments = {"passes": 30, "optimizer": sgd(0.05, momentum=0.9), "margin_weight": margin_weight}
        estimate = EstimateUnseen([KernelRegression()], aim_below=3.0)
        run_chain(fresh, imitated, data, [estimate, ImitateUnseen(**arguments)])
        answers, labels = logits(imitated, data, "forget")
        wanted = log_odds(estimate.artifacts["targets"]["probabilities"], labels)
        misses[margin_weight] = float((margin(answers, labels) - wanted).abs().mean())
    assert misses[0.3] < 0.7 * misses[0.0]


def test_a_correction_ends_nearer_to_what_was_meant(memorising, fresh):
    """A short teaching ends above targets that a memory stands against, unless they move against what is missed."""
    model, data = memorising
    misses = {}
    for correction in (0.0, 1.0):
        imitated = copy.deepcopy(model)
        estimate = EstimateUnseen([KernelRegression()])
        teach = ImitateUnseen(passes=20, optimizer=sgd(0.05, momentum=0.9), schedule="one_cycle", correction=correction)
        results = run_chain(fresh, imitated, data, [estimate, teach])
        answers, labels = logits(imitated, data, "forget")
        wanted = log_odds(estimate.artifacts["targets"]["probabilities"], labels)
        # As the correction sees them: a few that are remembered well count no more than others.
        misses[correction] = float((margin(answers, labels) - wanted).clamp(-2, 2).mean())
        assert results[-1].summary == ({"correction": {"lowered by": float(teach._aim.lowered)}} if correction else {})
    assert misses[0.0] > 0.3
    assert abs(misses[1.0]) < 0.7 * misses[0.0]


def test_whole_classes_have_no_odds_to_learn(trained, make_data, fresh):
    arguments = {"max_steps": 3, "optimizer": sgd(0.05), "cache": False}
    ends = []
    for weights in ({}, {"margin_weight": 1.0}, {"correction": 1.0}):
        model = copy.deepcopy(trained)
        chain = [EstimateUnseen([Copies(2, (1,))]), ImitateUnseen(**weights, **arguments)]
        run_chain(fresh, model, make_data(forget=WholeClasses([3])), chain)
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_the_number_of_steps_grows_with_the_forget_set(make_data):
    data = make_data()
    for arguments, steps in (
        ({"passes": 6, "forget_batch_size": 9}, 6 * 27 // 9),
        ({"passes": 6, "forget_batch_size": 500}, 6),
        ({"passes": 6, "forget_batch_size": 500, "min_forget_batches": 4}, -(-6 * 27 // 7)),
        ({"passes": 6, "forget_batch_size": 3, "min_forget_batches": 4}, 6 * 27 // 3),
        ({"passes": 6, "min_forget_batches": 500}, 6 * 27),
        ({"max_steps": 5}, 5),
    ):
        stage = ImitateUnseen(**arguments)
        stage.artifacts = Artifacts({"targets": {"class_gone": torch.tensor([False])}})
        assert stage.length(data) == (-1, steps)


def test_every_rank_gets_a_forgotten_sample_of_a_small_request(make_data, monkeypatch):
    monkeypatch.setattr(UnlearningDataModule, "ranks", (0, 4))
    data = make_data(forget=RandomCount(12))
    stage = ImitateUnseen(min_forget_batches=5, forget_batch_size=16)
    assert stage.sizes(data)[1] == 4
    data = make_data(forget=RandomCount(40))
    assert stage.sizes(data)[1] == 8


def test_a_few_forgotten_samples_do_not_cost_the_retained_ones(trained_resnet, make_data, fresh):
    """All of a small request in every batch would end after a few steps: with a last stage shrunk before, at 92 %."""
    data = make_data(forget=RandomCount(5), unseen=100)
    run_chain(fresh, trained_resnet, data, load_method("imitate_unseen")())
    assert accuracy(trained_resnet, data, "retain") > 97


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EstimateUnseen([]), "0 estimators"),
        (lambda: EstimateUnseen(weights=(1,)), "2 estimators and weights"),
        (lambda: EstimateUnseen(weights=(0, 0)), "not all 0"),
        (lambda: EstimateUnseen(class_estimators=[]), r"class_estimators is \[\]; needed: at least one"),
        (lambda: EstimateUnseen(bank_samples=0), "bank_samples is 0"),
        (lambda: EstimateUnseen(class_bank_samples=1), "class_bank_samples 1, .* at least two samples in each bank"),
        (lambda: EstimateUnseen(rank_samples=0), "rank_samples 0 .* one to rank among"),
        (lambda: EstimateUnseen(unseen_samples=1), "unseen_samples 1; needed: .* two unseen ones"),
        (lambda: EstimateUnseen(weights=(math.inf, 1)), "one finite weight of 0 or more"),
        (lambda: EstimateUnseen(rank_noise=-1), "rank_noise -1"),
        (lambda: EstimateUnseen(rank_noise=math.inf), "rank_noise inf"),
        (lambda: ImitateUnseen(max_epochs=3), "max_epochs is 3; needed: passes, or max_steps"),
        (lambda: ImitateUnseen(passes=0), "passes is 0"),
        (lambda: ImitateUnseen(divergence_weight=0), "one of them above 0"),
        (lambda: ImitateUnseen(margin_weight=float("nan")), "margin_weight nan"),
        (lambda: KernelRegression(ridge=0), "ridge is 0"),
        (lambda: Copies(1, ()), "something in which it differs"),
        (lambda: Copies(4, (0,), flip=False), "something in which it differs"),
        (lambda: ImitateUnseen(correction=1.5), "correction is 1.5; needed: 0"),
        (lambda: Relabel(margin_weight=0.1), "labels have no odds"),
        (lambda: Relabel(correction=0.1), "labels have no odds"),
    ],
)
def test_arguments_are_checked(build, message):
    with pytest.raises(ChainError, match=message):
        build()


def test_calibration_without_unseen_samples_is_refused(trained, make_data, fresh):
    before = copy.deepcopy(trained.state_dict())
    with pytest.raises(ChainError, match="0 unseen samples of classes that are retained; needed: at least 1"):
        run_chain(fresh, trained, make_data(unseen=0), [NormDecay(0.5), EstimateUnseen([Copies()])])
    torch.testing.assert_close(trained.state_dict(), before, rtol=0, atol=0)  # found before the first stage
    stage = EstimateUnseen([Copies(2, (1,))], calibrate=False)
    run_chain(fresh, trained, make_data(unseen=0), [stage, NormDecay(0.9, parameters=ParameterSelector(parts=["head"]))])
    assert "targets" in stage.artifacts
