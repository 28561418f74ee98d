import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.callbacks.select_by_unseen import SelectByUnseen
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.data.reading import pick
from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import ClassMeanTargets, DistilOriginal, EstimateUnseen, FineTune, KeepWeights, ResetLayers


def test_kl_and_reset_against_a_plain_loop(trained_resnet, make_data, fresh):
    data, model, reset = make_data(), copy.deepcopy(trained_resnet), copy.deepcopy(trained_resnet)
    stage = DistilOriginal(weight=0.7, max_epochs=2, optimizer=sgd(0.02, momentum=0.9))
    run_chain(fresh, model, data, [KeepWeights(), ResetLayers(last_blocks=1), stage])
    run_chain(fresh, reset, data, [KeepWeights(), ResetLayers(last_blocks=1)])
    original, plain = trained_resnet.eval(), reset.train()
    optimizer = sgd(0.02, momentum=0.9)(list(plain.parameters()))
    for epoch in range(2):
        for batch in steps(data, stage, epoch, 2):
            x, y = batch["retain"].input, batch["retain"].target
            with torch.no_grad():
                p = original(x).softmax(1)
            logits = plain(x)
            divergence = (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
            optimizer.zero_grad()
            (F.cross_entropy(logits, y) + 0.7 * divergence).backward()
            optimizer.step()
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_weight_is_checked():
    with pytest.raises(ChainError, match="weight is -1; needed: 0 or more"):
        DistilOriginal(weight=-1)


def test_who_trains_on_unseen_samples_is_not_compared_with_them(trained, make_data, make_trainer, tmp_path):
    data = make_data()
    unseen = {data.samples.keys[i] for i in data.part("unseen")[1].tolist()}
    stages = [DistilOriginal(part="unseen", with_labels=False)]
    report = make_trainer().unlearn(trained, data, stages, output=str(tmp_path), relearn_epochs=1)
    original, row = report.rows
    assert "forget_unseen/auc" in original.metrics
    assert not {name for name in row.metrics if name.startswith(("forget_unseen", "unseen", "streisand"))}
    assert "unseen" not in row.details["margins"]
    assert any("A stage trained on the unseen samples" in note for note in row.notes)
    split = SavedSplit.load(tmp_path / "split.json")
    assert split.unseen == []
    assert set(split.retain) >= unseen


def test_fits_of_no_epoch_train_on_nothing():
    assert DistilOriginal(part="unseen").trains_on_unseen
    assert not DistilOriginal(part="unseen", max_epochs=0).trains_on_unseen
    assert not DistilOriginal().trains_on_unseen


@pytest.mark.parametrize(
    "late",
    [
        lambda: [EstimateUnseen()],
        lambda: [ClassMeanTargets()],
        lambda: [FineTune(callbacks=[SelectByUnseen()])],
    ],
)
def test_nothing_is_compared_with_unseen_samples_behind_it(late):
    """In front of it, or where it trains on retained samples, the same stages are fine."""
    with pytest.raises(ChainError, match="by then a stage has trained on them"):
        check_chain([KeepWeights(), DistilOriginal(part="unseen"), *late()])
    check_chain([KeepWeights(), *late(), DistilOriginal(part="unseen")])
    check_chain([KeepWeights(), DistilOriginal(), *late()])
    with pytest.raises(ChainError, match="by then"):
        check_chain([KeepWeights(), DistilOriginal(part="unseen", callbacks=[SelectByUnseen()])])
    check_chain([KeepWeights(), DistilOriginal(part="unseen"), EstimateUnseen(weights=[0.5, 0.5], calibrate=False)])


def test_unseen_samples_of_a_forgotten_class_are_not_taught(trained, make_data, fresh):
    class Watched(DistilOriginal):
        def objective(self, batch):
            seen.extend(batch.target.tolist())
            return super().objective(batch)

    seen = []
    data = make_data(forget=WholeClasses([3]), unseen=60)
    samples, index = data.part("unseen")
    wanted = samples.targets[index]
    run_chain(fresh, trained, data, [Watched(part="unseen", with_labels=False)])
    assert (wanted == 3).any()
    assert sorted(seen) == sorted(wanted[wanted != 3].tolist())
    saved, labels = data.saved_split(unseen_trained=True), dict(zip(samples.keys, samples.targets.tolist(), strict=True))
    assert {labels[key] for key in saved.unseen} == {3}
    assert len(saved.retain) == len(data.part("retain")[1]) + int((wanted != 3).sum())
    assert 3 not in {labels[key] for key in saved.retain}


def test_where_no_unseen_sample_can_be_taught_that_is_said_before_the_first_step(trained, make_data, digits, fresh):
    threes = pick(digits.test, (digits.test.targets == 3).nonzero().flatten())
    unseen = VisionData("threes", threes, threes, digits.classes, digits.mean, digits.std)
    before = copy.deepcopy(trained.state_dict())
    data = make_data(forget=WholeClasses([3]), unseen=unseen)
    with pytest.raises(ChainError, match="no unseen sample is of a class that is retained"):
        run_chain(fresh, trained, data, [ResetLayers(last_blocks=1), DistilOriginal(part="unseen")])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
