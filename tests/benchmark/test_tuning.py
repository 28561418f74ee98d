import json
import logging
import math
import re
import time

import pytest
import yaml
from helpers import untrained

from lightning_unlearn.benchmark.comparison import plan
from lightning_unlearn.benchmark.tuning import Trial, _said, best_trial, settings_to_try, with_factors
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.config.shipped import config_names
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ConfigError

SGD = "{class_path: torch.optim.SGD, init_args: {lr: 0.05}}"
TUNE = f"""stages:
- class_path: GradientAscent
  init_args: {{max_epochs: 2, max_retain_drop: null, optimizer: {SGD}}}
tune:
  stages.0.init_args.max_epochs: [0.5, 1, 2]
  stages.0.init_args.optimizer.init_args.lr: [0.01, 1, 100]
"""


def test_published_settings_come_first_and_none_twice():
    grid = {"a": [0.1, 1.0, 10.0], "b": [1.0, 3.0]}
    tried = settings_to_try(grid, 4)
    assert tried[0] == {"a": 1.0, "b": 1.0}
    assert len({str(t) for t in tried}) == len(tried) == 4
    assert settings_to_try(grid, 4) == tried  # drawn alike in every run
    assert settings_to_try(grid, 3) == tried[:3]
    # Behind those of the grid come settings between them, so that every method gets as many.
    more = settings_to_try(grid, 100)
    assert more[:6] == settings_to_try(grid, 6)
    assert len({str(factors) for factors in more}) == 100
    assert all(0.1 <= factors["a"] <= 10 and 1 <= factors["b"] <= 3 for factors in more)
    assert len(settings_to_try({"a": [1.0]}, 5)) == 1
    assert settings_to_try({"a": [0.5, 2.0]}, 1) == [{"a": 1.0}]  # published settings also where the grid leaves them out


def test_numbers_are_multiplied_at_their_place():
    content = yaml.safe_load(TUNE)
    lr, epochs = "stages.0.init_args.optimizer.init_args.lr", "stages.0.init_args.max_epochs"
    changed = with_factors(content, {lr: 3.0, epochs: 0.1})["stages"][0]["init_args"]
    assert changed["optimizer"]["init_args"]["lr"] == pytest.approx(0.15)
    assert changed["max_epochs"] == 1
    assert content == yaml.safe_load(TUNE)
    for place in ("stages.1.init_args.lr", "stages.0.class_path", "stages.0.init_args.max_retain_drop", "stages.x"):
        with pytest.raises(ConfigError, match="there is no number at"):
            with_factors(content, {place: 2.0})


def test_a_place_may_lie_in_a_list():
    content = {"stages": [{"class_path": "EstimateUnseen", "init_args": {"weights": [0.4, 0.6]}}]}
    factors = {"stages.0.init_args.weights.1": 2.0}
    assert with_factors(content, factors)["stages"][0]["init_args"]["weights"] == [0.4, 1.2]
    assert _said(content, factors) == "EstimateUnseen weights.1 1.2 for 0.6"


def test_the_nearest_to_unseen_of_those_that_keep_the_retained():
    trials = [Trial({}, 0.5, 99.0, work=1), Trial({}, 0.1, 90.0), Trial({}, 0.3, 96.0, work=9), Trial({}, 0.3, 97.0, work=5)]
    assert best_trial(trials, before=100.0) == 3
    assert best_trial([*trials, Trial({}, failed="broke")], before=100.0) == 3
    assert best_trial(trials, before=100.0, max_drop=10.0) == 1
    assert best_trial([Trial({}, 0.5, 50.0), Trial({}, 0.4, 60.0)], before=100.0) == 0
    # The budget is counted from the original, not from a trial that knows more than it.
    assert best_trial([Trial({}, 0.5, 99.5), Trial({}, 0.05, 93.0)], before=90.0) == 1
    assert math.isnan(Trial({}).distance)


@pytest.mark.parametrize("name", config_names("method"))
def test_the_grid_of_every_method_names_numbers_of_its_file(name, tmp_path):
    method = load_method(name)
    if "lr:" not in method.path.read_text() and "tune" not in method.content:
        with pytest.raises(ConfigError, match="nothing to tune"):
            _ = method.grid
        return
    assert with_factors(method.content, dict.fromkeys(method.grid, 1.0)) == method.content
    assert all(1.0 in factors for factors in method.grid.values())
    # Every corner of the grid is a method that its stages take.
    for corner in (min, max):
        factors = {place: corner(listed) for place, listed in method.grid.items()}
        path = tmp_path / "corner.yaml"
        path.write_text(yaml.safe_dump({"stages": with_factors(method.content, factors)["stages"]}))
        assert load_method(str(path))()


@pytest.fixture
def run(make_data, make_trainer, tmp_path):
    def run(text=TUNE, dataset=None, **kwargs):
        (tmp_path / "climb.yaml").write_text(text)
        where = {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank")}
        arguments = {"references": 1, "relearn_epochs": 0, **where, **kwargs}
        data = make_data(dataset, unseen=60)
        return make_trainer(max_epochs=4).benchmark(untrained(), data, [str(tmp_path / "climb.yaml")], **arguments)

    return run


def test_settings_are_chosen_on_what_is_not_reported_and_given_back(run, digits, spied, tmp_path, make_data):
    report = run(tune=5, seeds=[0], draws=[0])
    rows = {row.method: row for row in report.rows if row.role == "method"}
    assert set(rows) == {"climb", "climb_tuned"}
    trials = [json.loads(p.read_text()) for p in sorted((tmp_path / "out" / "tuning").glob("*.json"))]
    assert len(trials) == 5
    assert len({str(trial["factors"]) for trial in trials}) == 5
    best = trials[best_trial([Trial(**t) for t in trials], max(t["retain"] for t in trials))]
    chosen = load_method(str(tmp_path / "out" / "tuned" / "climb_tuned.yaml"))
    content = with_factors(yaml.safe_load(TUNE), best["factors"])
    assert chosen.content == {"stages": content["stages"]}
    assert chosen()  # it is a method
    note = next(n for n in rows["climb_tuned"].notes if "trials" in n)
    assert f"{sum(t['seconds'] for t in trials):.1f} s" in note
    assert not any("trials" in n for n in rows["climb"].notes)
    # The bank holds an original of another seed, and references of the reported set alone.
    kept = [json.loads(p.read_text())["content"] for p in (tmp_path / "bank").glob("*/entry.json")]
    assert sorted((k["view"], k["seed"]) for k in kept) == [("retain", 1), ("train", 0), ("train", 10)]
    # Again: nothing is tried twice.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tuning").iterdir()}
    again = run(tune=5, seeds=[0], draws=[0])
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tuning").iterdir()} == before
    assert [r.method for r in again.rows] == [r.method for r in report.rows]


def test_published_settings_that_are_best_are_one_row(run, caplog):
    """One trial: the published settings alone."""
    with caplog.at_level(logging.INFO, "lightning_unlearn.benchmark.tuning"):
        rows = [row for row in run(tune=1, seeds=[0], draws=[0]).rows if row.role == "method"]
        run(tune=1, seeds=[0], draws=[0])
    assert [row.method for row in rows] == ["climb"]
    assert any("as published" in note for note in rows[0].notes)
    told = [record.getMessage() for record in caplog.records if "1 of 1 (as published)" in record.getMessage()]
    assert len(told) == 2
    assert told[0].endswith(" s)")
    assert told[1].endswith("(known)")


def test_settings_are_named_as_a_person_would(trained, make_data, make_trainer, tmp_path, caplog):
    from lightning_unlearn.benchmark.tuning import tune_method

    (tmp_path / "climb.yaml").write_text(TUNE)
    with caplog.at_level(logging.INFO, "lightning_unlearn.benchmark.tuning"):
        tune_method(make_trainer().fresh, make_data(unseen=60), trained, str(tmp_path / "climb.yaml"), 4, tmp_path)
    assert re.search(r"GradientAscent max_epochs [14] for 2", caplog.text)


def test_choosing_reads_no_test_sample(spied, make_data, make_trainer, trained, tmp_path):
    from lightning_unlearn.benchmark.tuning import tune_method

    assert isinstance(spied, VisionData)
    (tmp_path / "climb.yaml").write_text(TUNE)
    data = make_data(spied, unseen=60)  # reading a test image would raise
    path, note = tune_method(make_trainer().fresh, data, trained, str(tmp_path / "climb.yaml"), 3, tmp_path / "out")
    assert path is None or path.is_file()
    assert "3 trials" in note


def test_seconds_count_what_judges_a_trial_and_trials_are_known_by_their_batches(trained, make_data, make_trainer, tmp_path):
    from lightning_unlearn.benchmark.tuning import tune_method

    def slow(*args, **kwargs):
        if kwargs.get("evaluation"):
            time.sleep(0.3)
        return make_trainer().fresh(*args, **kwargs)

    (tmp_path / "climb.yaml").write_text(TUNE)
    for size in (None, 3):
        data = make_data(unseen=60, forget_batch_size=size)
        _, note = tune_method(slow, data, trained, str(tmp_path / "climb.yaml"), 1, tmp_path)
        assert "s of wall time (their stages, and the passes that judge them; not the training of the original)" in note
    trials = [json.loads(p.read_text()) for p in (tmp_path / "tuning").glob("*.json")]
    assert len(trials) == 2
    assert all(trial["seconds"] >= 0.6 for trial in trials)


def test_settings_that_break_a_network_are_listed_and_others_go_on(trained, make_data, make_trainer, tmp_path):
    from lightning_unlearn.benchmark.tuning import tune_method

    breaks = "stages:\n- class_path: MaskLearning\n  init_args: {max_epochs: 5, penalty: 1.0e-4}\n"
    breaks += "tune: {stages.0.init_args.penalty: [1, 100]}\n"
    (tmp_path / "mask.yaml").write_text(breaks)
    path, _ = tune_method(make_trainer().fresh, make_data(unseen=60), trained, str(tmp_path / "mask.yaml"), 2, tmp_path)
    trials = [json.loads(p.read_text()) for p in sorted((tmp_path / "tuning").glob("*.json"))]
    assert any("of the mask is on" in trial["failed"] for trial in trials)
    assert path is None  # the published ones


def test_what_cannot_be_tuned_is_refused(make_data, tmp_path):
    (tmp_path / "decay.yaml").write_text("stages:\n- class_path: NormDecay\n  init_args: {factor: 0.5}\n")
    (tmp_path / "climb.yaml").write_text(TUNE)
    climb = [str(tmp_path / "climb.yaml")]
    with pytest.raises(ConfigError, match=r"decay.yaml has nothing to tune; needed: a learning rate"):
        plan(make_data(), [str(tmp_path / "decay.yaml")], [0], [0], [], 1, tune=3)
    data = make_data()
    with pytest.raises(ConfigError, match="forgets the same samples"):
        plan(data, climb, [0], [0], [WholeClasses([2]), RandomFraction(0.1)], 1, tune=3)
    assert isinstance(data.forget_rule, RandomFraction)
    with pytest.raises(ConfigError, match=r"DetectedMislabels has a forget set on each original .* Tune without this rule"):
        plan(data, climb, [0], [0], [RandomFraction(0.1), DetectedMislabels("loss", count=5)], 1, tune=3)
    with pytest.raises(ConfigError, match="no unseen samples to choose by"):
        plan(make_data(unseen=0), climb, [0], [0], [], 1, tune=3)
    with pytest.raises(ConfigError, match="challenge_6th trains on the unseen samples, by which settings are chosen"):
        plan(make_data(), [*climb, "challenge_6th"], [0], [0], [], 1, tune=3)
    with pytest.raises(ConfigError, match="tune is -1"):
        plan(make_data(), climb, [0], [0], [], 1, tune=-1)
    plan(make_data(), climb, [0], [0], [RandomFraction(0.1), WholeClasses([2])], 1, tune=3)
