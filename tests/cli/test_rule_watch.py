"""What is forgotten is never decided by a layer that nobody looked at."""

import pytest
import yaml

from lightning_unlearn.cli.rule_watch import RuleWatch
from lightning_unlearn.exceptions import ConfigError

LISTED = {"data": {"forget": {"class_path": "ListedSamples", "init_args": {"path": "request.csv"}}}}
RANDOM = {"data": {"forget": {"class_path": "RandomFraction", "init_args": {"fraction": 0.1}}}}


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(LISTED))
    return str(path)


def test_an_example_does_not_replace_a_request(mine):
    for name in (mine, None):
        watch = RuleWatch()
        if name is None:
            watch.typed("--data.forget.path")
        else:
            watch.layer(name, LISTED)
        with pytest.raises(ConfigError, match=r"-c data/digits behind it would replace.*Give -c data/digits first"):
            watch.layer("data/digits", RANDOM)


def test_a_request_replaces_an_example_without_a_word(mine, caplog):
    watch = RuleWatch()
    watch.layer("data/digits", RANDOM)
    watch.layer(mine, LISTED)
    watch.layer("method/fine_tune", {"stages": []})
    watch.layer("data/digits", {"data": {"batch_size": 3}})
    watch.end("unlearn")
    assert not caplog.records


def test_a_request_that_replaces_another_is_said(mine, caplog):
    watch = RuleWatch()
    watch.typed("--data.forget")
    watch.layer(mine, LISTED)
    assert f"{mine} replaces what --data.forget gives" in caplog.text


def test_an_example_that_nobody_chose_is_said_loudly(mine, caplog):
    watch = RuleWatch()
    watch.typed("--data.forget_seed")
    watch.layer("data/digits", RANDOM)
    watch.end("fit")
    assert not caplog.records
    watch.end("unlearn")
    assert "the example in data/digits (RandomFraction fraction 0.1)" in caplog.text


def test_the_unused_rule_of_a_training_is_nobodys_choice(tmp_path, caplog):
    path = tmp_path / "config.yaml"
    for view, loud in (("train", True), ("retain", False)):
        caplog.clear()
        path.write_text(yaml.safe_dump({"command": "fit", "data": {**RANDOM["data"], "view": view}}))
        watch = RuleWatch()
        watch.layer(str(path), RANDOM)
        watch.end("unlearn")
        assert bool(caplog.records) is loud
