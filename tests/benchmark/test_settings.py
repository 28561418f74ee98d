import logging

import pytest
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.benchmark.settings import check_settings, training_settings
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
from lightning_unlearn.data.whole import whole
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.table import grids

DECAY = "stages:\n- class_path: GaussianNoise\n  init_args: {std: 0.01}\n"


@pytest.fixture
def noisy(make_data):
    return make_data(forget=NoisyLabels(), unseen=30, label_noise=LabelNoise(0.3, seed=4))


def recipe(epochs=1):
    return Recipe(lambda: untrained_copy(untrained()), epochs, {"accelerator": "cpu"})


def test_every_share_with_every_length(noisy):
    found = training_settings(noisy, recipe(), [0.1, 0.2], [1, 3])
    assert [setting.name for setting in found] == [
        "10 % wrong labels, 1 epochs",
        "10 % wrong labels, 3 epochs",
        "20 % wrong labels, 1 epochs",
        "20 % wrong labels, 3 epochs",
    ]
    assert [setting.recipe.max_epochs for setting in found] == [1, 3, 1, 3]
    wrong = [int((s.data.samples.targets != s.data.samples.true_targets).sum()) for s in found]
    assert wrong == [30, 30, 60, 60]
    # The seed of the noise is that of the data, whose own labels stay.
    assert found[0].data.label_noise == LabelNoise(0.1, seed=4)
    assert int((noisy.samples.targets != noisy.samples.true_targets).sum()) == 90
    assert [setting.name for setting in training_settings(noisy, recipe())] == [""]


@pytest.mark.parametrize(("fractions", "epochs"), [([0.0], []), ([1.2], []), ([0.1, 0.1], []), ([], [0]), ([], [3, 3])])
def test_settings_are_checked(noisy, fractions, epochs):
    with pytest.raises(ConfigError, match="needed: different shares above 0"):
        check_settings(noisy, fractions, epochs)


def test_shares_need_label_noise(make_data):
    with pytest.raises(ConfigError, match="the data have no label noise"):
        check_settings(make_data(), [0.1], [])


def test_a_recorder_changes_no_weight_and_is_kept(noisy, tmp_path):
    plain = Bank(tmp_path / "a").trained(recipe(), whole(noisy), "train", 0)
    bank, first, second = Bank(tmp_path / "b"), RecordMargins(), RecordMargins()
    recorded = bank.trained(recipe(), whole(noisy), "train", 0, first)
    assert all(bool((a == b).all()) for a, b in zip(plain.parameters(), recorded.parameters(), strict=True))
    time = next((tmp_path / "b").glob("*/weights.ckpt")).stat().st_mtime_ns
    bank.trained(recipe(), whole(noisy), "train", 0, second)
    assert next((tmp_path / "b").glob("*/weights.ckpt")).stat().st_mtime_ns == time
    assert bool((first.state_dict()["margin_sum"] == second.state_dict()["margin_sum"]).all())
    # One that was trained without is trained again.
    late = RecordMargins()
    Bank(tmp_path / "a").trained(recipe(), whole(noisy), "train", 0, late)
    assert bool((late.state_dict()["margin_sum"] == first.state_dict()["margin_sum"]).all())


def test_a_grid_with_detection_is_one_benchmark_and_trains_nothing_twice(noisy, make_trainer, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lightning_unlearn.bank.bank")
    (tmp_path / "decay.yaml").write_text(DECAY)

    def run():
        return make_trainer(max_epochs=3).benchmark(
            untrained(), noisy, [str(tmp_path / "decay.yaml")], output=str(tmp_path / "out"), bank=str(tmp_path / "bank"),
            rules=[NoisyLabels(), DetectedMislabels("aum", quantile=0.8)], references=1, goal="repair", relearn_epochs=0,
            noise_fractions=[0.1, 0.3], epochs=[2],
        )  # fmt: skip

    report = run()
    assert [request.name for request in report.requests] == [
        "10 % wrong labels, 2 epochs: all samples with labels made wrong",
        "10 % wrong labels, 2 epochs: labels suspected by aum above 0.8, draw 0",
        "30 % wrong labels, 2 epochs: all samples with labels made wrong",
        "30 % wrong labels, 2 epochs: labels suspected by aum above 0.8, draw 0",
    ]
    # For each share an original, one with smoothing, and two references; one for all on true labels.
    models = list((tmp_path / "bank").glob("*/weights.ckpt"))
    assert len(models) == 2 * 4 + 1
    assert sum("training a" in line for line in caplog.messages) == len(models)
    assert [curves.setting for curves in report.curves] == ["10 % wrong labels, 2 epochs", "30 % wrong labels, 2 epochs"]
    assert all(len(curves.by_epoch) == 2 for curves in report.curves)
    assert all(0.4 < curves.auroc["aum"] <= 1 for curves in report.curves)
    assert [curves.suspected for curves in report.curves] == [54, 54]
    detected = [row for row in report.rows if row.role == "method" and "suspected" in row.request]
    assert all(row.metrics["time/detect_s"] > 0 for row in detected)
    times = {path: path.stat().st_mtime_ns for path in models}
    again = run()
    assert {path: path.stat().st_mtime_ns for path in models} == times
    assert [row.metrics["test/acc"] for row in again.rows] == [row.metrics["test/acc"] for row in report.rows]
    assert Report.load(tmp_path / "out").curves == again.curves == report.curves
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Finding wrong labels" in page
    assert "epoch whose loss is the score" in page
    assert any("finding wrong labels, 30 % wrong labels" in grid.title for grid in grids(report))


def test_a_rule_that_needs_an_original_says_so(make_data):
    with pytest.raises(DataError, match="SuspectedMislabels"):
        make_data(forget=DetectedMislabels()).part("forget")
    assert DetectedMislabels("loss", count=5).describe() == "labels suspected by the 5 highest loss"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (DetectedMislabels("cleanlab"), "score is 'cleanlab'; needed: one of mean_loss"),
        (DetectedMislabels("aum", 5, 0.9), "Both count 5 and quantile 0.9"),
    ],
)
def test_what_cannot_be_detected_is_refused_before_anything_is_trained(noisy, make_trainer, tmp_path, rule, message):
    (tmp_path / "decay.yaml").write_text(DECAY)
    trainer, where = make_trainer(max_epochs=1), {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank")}
    with pytest.raises(ConfigError, match=message):
        trainer.benchmark(untrained(), noisy, [str(tmp_path / "decay.yaml")], rules=[rule], **where)
    assert not (tmp_path / "bank").exists()


def test_an_audit_has_one_forget_set_for_all_its_models(noisy, make_trainer, tmp_path):
    (tmp_path / "decay.yaml").write_text(DECAY)
    where = {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank"), "tier": "audit", "models": 3}
    trainer, rules = make_trainer(max_epochs=1), [DetectedMislabels("loss", count=5)]
    with pytest.raises(ConfigError, match=r"the models of an audit forget the same. Needed: the tier screen; or run detect"):
        trainer.benchmark(untrained(), noisy, [str(tmp_path / "decay.yaml")], rules=rules, **where)
    assert not (tmp_path / "bank").exists()
