import pytest
import torch
from helpers import sgd, untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.benchmark.repair import TRUE_LABELS, baselines, smoothed, with_true_labels
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
from lightning_unlearn.data.whole import whole
from lightning_unlearn.report.leaderboard import leaderboard
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.wording import summary

TUNE = "stages:\n- class_path: FineTune\n  init_args: {max_epochs: 1, batch_size: 64}\n"


@pytest.fixture
def noisy(make_data):
    return make_data(forget=NoisyLabels(), unseen=30, label_noise=LabelNoise(0.3))


def recipe(model=None):
    return Recipe(lambda: untrained_copy(model or untrained()), 1, {"accelerator": "cpu"})


def test_true_labels_are_those_before_noise_and_nothing_is_forgotten(noisy, digits):
    truth = with_true_labels(noisy)
    assert torch.equal(truth.samples.targets, digits.train.targets)
    assert truth.samples.images is noisy.samples.images
    assert torch.equal(truth.part("train")[1], noisy.part("train")[1])
    assert len(truth.part("forget")[1]) == 0
    # The data that it was made from are as they were.
    assert len(noisy.part("forget")[1]) > 50
    assert noisy.samples.true_targets is not None
    assert truth.fingerprint("train") != noisy.fingerprint("train")
    assert whole(noisy).fingerprint("train") == noisy.fingerprint("train")


def test_without_known_truth_there_are_no_true_labels(make_data):
    assert with_true_labels(make_data()) is None


def test_baselines_are_trained_once_whatever_is_forgotten(noisy, tmp_path):
    bank = Bank(tmp_path)
    found = baselines(bank, recipe(), noisy, [0])
    assert [(name, seed) for name, seed, _ in found] == [(TRUE_LABELS, 0), ("label smoothing 0.1", 0)]
    assert len(list(tmp_path.glob("*/weights.ckpt"))) == 2
    states = [torch.cat([p.flatten() for p in model.parameters()]) for _, _, model in found]
    original = bank.trained(recipe(), noisy, "train", 0)
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], torch.cat([p.flatten() for p in original.parameters()]))
    noisy.draw(1)
    again = baselines(bank, recipe(), noisy, [0])
    assert len(list(tmp_path.glob("*/weights.ckpt"))) == 3
    assert torch.equal(torch.cat([p.flatten() for p in again[0][2].parameters()]), states[0])


def test_true_labels_do_not_depend_on_the_noise(make_data, tmp_path):
    for fraction in (0.1, 0.4):
        data = make_data(forget=NoisyLabels(), unseen=30, label_noise=LabelNoise(fraction))
        Bank(tmp_path).trained(recipe(), with_true_labels(data), "train", 0)
    assert len(list(tmp_path.glob("*/weights.ckpt"))) == 1


def test_only_a_classifier_that_does_not_smooth_is_smoothed():
    smooth = smoothed(recipe())
    assert smooth.build(0).label_smoothing == pytest.approx(0.1)
    assert smooth.build(0).hparams["label_smoothing"] == pytest.approx(0.1)
    assert not recipe().build(0).label_smoothing
    assert smoothed(smooth) is None


def test_a_benchmark_of_repair_shows_all_that_a_model_is_compared_with(noisy, make_trainer, tmp_path):
    (tmp_path / "tune.yaml").write_text(TUNE)
    model = untrained()
    model.optimizer = sgd(0.1, momentum=0.9)
    report = make_trainer(max_epochs=3).benchmark(
        model, noisy, [str(tmp_path / "tune.yaml")], references=1, goal="repair", relearn_epochs=0,
        output=str(tmp_path / "out"), bank=str(tmp_path / "bank"),
    )  # fmt: skip
    lines = {line.method: line for line in leaderboard(report)}
    assert list(lines) == ["tune", "retrained reference", "original", TRUE_LABELS, "label smoothing 0.1"]
    assert lines[TRUE_LABELS].role == "baseline"
    assert lines[TRUE_LABELS].metrics["test/acc"].mean > lines["original"].metrics["test/acc"].mean
    text = " ".join(summary(report))
    assert "has the highest test accuracy" in text
    assert "the original has" in text
    assert f"{TRUE_LABELS}:" in text
    assert Report.load(tmp_path / "out").to_json() == report.to_json()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "what could be reached if each wrong label were put right" in page
