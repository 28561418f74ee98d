"""Wrong labels are found on digits, by the course of training and by a memorising model alone, and written down."""

import csv
import importlib.util
import re

import pytest
import torch
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.data.by_score import ByScore, read_scores
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.suspected import SuspectedMislabels, read_suggested
from lightning_unlearn.detection.curves import detect_on_original
from lightning_unlearn.detection.folds import Folds, confident_learning
from lightning_unlearn.detection.record import MarginRecord
from lightning_unlearn.detection.report import report_of
from lightning_unlearn.detection.result import Detection, Scored
from lightning_unlearn.detection.run import SCORES, detect
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.functional.label_scores import final_loss, negative_margin
from lightning_unlearn.training import fit_quietly

RECIPE = Recipe(untrained, 15, {"accelerator": "cpu"})
CLEANLAB = importlib.util.find_spec("cleanlab") is not None


@pytest.fixture(scope="module")
def _recorded(digits):
    from lightning_unlearn.data.datamodule import UnlearningDataModule

    torch.manual_seed(0)
    data = UnlearningDataModule(digits, None, batch_size=32, label_noise=LabelNoise(0.2), num_workers=0, seed=0)
    model, record = untrained(), RecordMargins()
    fit_quietly(model, data, "train", 30, {"accelerator": "cpu"}, callbacks=[record])
    return model.cpu().eval(), data, MarginRecord.of(record.state_dict(), data)


@pytest.fixture
def recorded(_recorded):
    return _recorded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


def test_the_course_of_training_tells_wrong_labels(recorded, fresh, tmp_path):
    model, data, record = recorded
    found = detect(fresh, model, data, record=record)
    assert list(found.scores) == ["mean_loss", "aum", "early_loss", "self_influence", "loss", "margin"]
    samples, index = data.part("train")
    assert torch.equal(found.wrong, samples.targets[index] != samples.true_targets[index])
    areas = {name: found.auroc(name) for name in found.scores}
    assert areas["mean_loss"] > 0.95
    assert min(areas["aum"], areas["early_loss"]) > 0.9
    assert min(areas[name] for name in ("self_influence", "loss", "margin")) > 0.6
    assert found.decision("mean_loss").f1 > 0.75
    # Where guessing is right in one of nine.
    assert found.suggestion_accuracy > 0.6
    assert not bool((found.suggested == found.labels).any())

    found.save(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "index", *found.scores, "label", "suggested", "suspected"]
    assert torch.equal(read_scores(tmp_path / "scores.csv", samples.keys, "aum")[index], found.scores["aum"].values)
    assert torch.equal(read_suggested(tmp_path / "scores.csv", samples.keys, found.classes)[index], found.suggested)
    by_mark = SuspectedMislabels(tmp_path / "scores.csv").select(samples, index, 0, found.classes).indices
    assert torch.equal(by_mark, index[found.suspected])
    by_rank = ByScore(tmp_path / "scores.csv", "loss", count=9).select(samples, index, 0, found.classes).indices
    assert torch.equal(by_rank, index[torch.argsort(found.scores["loss"].values, descending=True)[:9]].sort().values)


def test_scores_of_the_model_alone_are_functions_of_one_pass(recorded, fresh):
    model, data, _ = recorded
    names = ["margin", "loss", "self_influence", "total_influence"]
    found = detect(fresh, model, data, names, Threshold(count=20))
    batch = next(iter(data.evaluation_loader("train", batch_size=1000)))
    with torch.no_grad():
        logits = model(batch.input)
    torch.testing.assert_close(found.scores["loss"].values, final_loss(logits, batch.target), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.scores["margin"].values, negative_margin(logits, batch.target), rtol=1e-3, atol=1e-4)
    assert all(int(scored.suspected.sum()) == 20 for scored in found.scores.values())
    assert found.decided_by == "margin"
    assert torch.equal(found.suspected, found.scores["margin"].suspected)
    # The head's inputs are its own: influence is that of the last layer of this network.
    assert min(found.auroc(name) for name in names) > 0.6


def test_out_of_fold_answers_come_from_models_that_did_not_see_the_sample(recorded, fresh, folder):
    model, data, _ = recorded
    before = data.fingerprint("train")
    folds = Folds(RECIPE, Bank(folder), 3)
    found = detect(fresh, model, data, ["out_of_fold"], folds=folds)
    assert data.fingerprint("train") == before
    assert len(data.part("forget")[1]) == 0
    assert len(list(folder.glob("*/weights.ckpt"))) == 3
    assert found.auroc("out_of_fold") > 0.9
    assert found.suggestion_accuracy > 0.75
    # From the bank now, and a fold of its own for every sample.
    table = folds.logits(fresh, data)
    again = detect(fresh, model, data, ["out_of_fold"], folds=folds)
    assert torch.equal(again.scores["out_of_fold"].values, final_loss(table, found.labels))
    assert torch.equal(again.scores["out_of_fold"].values, found.scores["out_of_fold"].values)


@pytest.mark.skipif(not CLEANLAB, reason="cleanlab is not installed: pip install 'lightning-unlearn[labels]'")
@pytest.mark.filterwarnings("ignore")  # of cleanlab's own dependencies
def test_confident_learning_decides_by_itself(recorded, fresh, folder):
    model, data, _ = recorded
    found = detect(fresh, model, data, ["cleanlab"], folds=Folds(RECIPE, Bank(folder), 3))
    assert found.auroc("cleanlab") > 0.9
    assert found.scores["cleanlab"].threshold == "confident learning"
    assert found.decision("cleanlab").f1 > 0.7
    counted = detect(fresh, model, data, ["cleanlab"], Threshold(count=7), folds=Folds(RECIPE, Bank(folder), 3))
    assert int(counted.suspected.sum()) == 7


@pytest.mark.skipif(not CLEANLAB, reason="cleanlab is not installed: pip install 'lightning-unlearn[labels]'")
@pytest.mark.filterwarnings("ignore")
def test_cleanlab_scores_are_high_for_wrong_labels():
    torch.manual_seed(0)
    true = torch.randint(3, (300,))
    logits = torch.nn.functional.one_hot(true, 3) * 4.0 + torch.randn(300, 3)
    labels = torch.where(torch.arange(300) < 30, (true + 1) % 3, true)
    scores, issues = confident_learning(logits.softmax(1), labels)
    assert float(scores[:30].mean()) > float(scores[30:].mean()) + 0.5
    assert float(issues[:30].float().mean()) > 0.8
    assert float(issues[30:].float().mean()) < 0.1


def test_without_cleanlab_the_remedy_is_named(recorded, fresh, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab", None)
    model, data, _ = recorded
    with pytest.raises(ConfigError, match=r"lightning-unlearn\[labels\]"):
        detect(fresh, model, data, ["cleanlab"], folds=Folds(RECIPE, Bank(folder), 3))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lose"], "score is lose; needed: different ones of mean_loss"),
        (["loss", "loss"], "score is loss, loss"),
        (["loss", "aum"], "The score 'aum' needs the course of training"),
        (["out_of_fold"], "The score 'out_of_fold' trains a model for each fold"),
    ],
)
def test_what_cannot_be_scored(names, message, recorded, fresh):
    model, data, _ = recorded
    with pytest.raises(ConfigError, match=message):
        detect(fresh, model, data, names)


def test_bad_epochs_and_folds(recorded, fresh, folder):
    model, data, record = recorded
    with pytest.raises(ConfigError, match="early_epoch is 31; needed: 1 to 30"):
        detect(fresh, model, data, record=record, early_epoch=31)
    for count in (1, 271):
        with pytest.raises(ConfigError, match=f"folds is {count}; needed: 2 to 270"):
            detect(fresh, model, data, ["out_of_fold"], folds=Folds(RECIPE, Bank(folder), count))


def test_folds_are_refused_before_the_scores_in_front_are_computed(recorded, folder):
    model, data, _ = recorded

    def no_trainer(**_):
        pytest.fail("a pass over the data was begun")

    with pytest.raises(ConfigError, match="folds is 271; needed: 2 to 270"):
        detect(no_trainer, model, data, ["loss", "out_of_fold"], folds=Folds(RECIPE, Bank(folder), 271))


@pytest.mark.parametrize(("names", "with_record"), [(["mean_loss"], True), (None, False), (["loss"], False)])
def test_an_early_epoch_that_no_score_uses_is_refused(names, with_record, recorded, fresh):
    model, data, record = recorded
    with pytest.raises(ConfigError, match=r"early_epoch is 3, .* early_loss, is not among .*record_margins; or leave"):
        detect(fresh, model, data, names, record=record if with_record else None, early_epoch=3)


def test_too_high_a_count_is_refused_before_an_original_is_trained(recorded, fresh, tmp_path):
    _, data, _ = recorded
    rule = DetectedMislabels("loss", count=270)
    with pytest.raises(ConfigError, match="count is 270, and there are 270 samples"):
        detect_on_original(fresh, Bank(tmp_path / "bank"), RECIPE, data, rule, 0, "", tmp_path)
    assert not (tmp_path / "bank").exists()


def test_every_score_is_told_apart_by_its_name_alone():
    assert {kind.needs for kind in SCORES.values()} == {"record", "features", "outputs", "folds"}


def test_a_network_without_a_linear_head_is_scored_by_its_outputs(recorded, fresh):
    class Odd(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.call = [model]

        def forward(self, x):
            return self.call[0](x) * self.weight

    model, data, _ = recorded
    assert list(detect(fresh, Odd(model), data).scores) == ["loss", "margin"]
    with pytest.raises(ConfigError, match="'self_influence' needs a last layer that is linear"):
        detect(fresh, Odd(model), data, ["self_influence"])


def test_nothing_suspected_is_nothing_to_forget(recorded, tmp_path):
    _, data, _ = recorded
    samples, index = data.part("train")
    lines = ["key,loss,suspected", *(f"{samples.keys[i]},0.5,0" for i in index.tolist())]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="none of the 270 training samples"):
        SuspectedMislabels(tmp_path / "s.csv").select(samples, index, 0, data.dataset.classes)


def test_many_suspects_of_a_mixture_are_warned_of(recorded, fresh):
    _, data, _ = recorded

    def warnings(share, threshold, name="self_influence"):
        suspected = torch.arange(270) < share * 270
        scored = Scored("", torch.arange(270.0), suspected, 0.0, threshold)
        samples, index = data.part("train")
        keys = [samples.keys[i] for i in index.tolist()]
        labels = samples.targets[index]
        return report_of(Detection(keys, index, data.dataset.classes, labels, labels, None, {name: scored}), data).warnings

    mixture = "the upper part of a mixture of two"
    [warning] = warnings(0.4, mixture)
    assert "40 % of the samples are suspected" in warning
    assert "Give --count or --quantile, or train with -c trainer/record_margins" in warning
    assert "record_margins" not in warnings(0.4, mixture, "mean_loss")[0]
    assert warnings(0.25, mixture) == []


@pytest.mark.parametrize(
    ("threshold", "remedy"),
    [
        (Threshold(quantile=0.15), "1 - q is the share that is suspected. Give a larger --quantile"),
        (Threshold(count=230), r"the rule \(the 230 highest\) takes too many. Give a smaller --count"),
    ],
)
def test_more_than_half_suspected_is_warned_of_under_every_rule(threshold, remedy, recorded):
    _, data, _ = recorded
    samples, index = data.part("train")
    values, labels = torch.arange(270.0), samples.targets[index]

    def warnings(rule):
        scored = Scored("", values, rule.suspected(values), 0.0, rule.describe())
        found = Detection([str(i) for i in index.tolist()], index, data.dataset.classes, labels, labels, None, {"loss": scored})
        return report_of(found, data).warnings

    [warning] = warnings(threshold)
    assert "85 % of the samples are suspected" in warning
    assert re.search(remedy, warning)
    assert warnings(Threshold(quantile=0.5)) == warnings(Threshold(count=135)) == []
