"""Layers of configuration."""

import pytest
import yaml

from lightning_unlearn.cli.configs import first_line, method_names, parse_config, read_layer
from lightning_unlearn.config.shipped import config_names, find_config
from lightning_unlearn.exceptions import ConfigError

ARGUMENTS = {
    "unlearn": frozenset({"trainer", "data", "stages", "checkpoint", "goal"}),
    "fit": frozenset({"trainer", "data"}),
}


def test_numbers_are_read_as_numbers():
    assert parse_config("a: 1e-4\nb: 2.5E+3\nc: 1.0e-5\nd: 7\ne: e5", "x") == {
        **{"a": 1e-4, "b": 2500.0, "c": 1e-5, "d": 7},
        "e": "e5",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "x, line 2: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "'b' stands twice"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [1", "x, line 1"),
        ("- a", "holds a list"),
    ],
)
def test_bad_yaml_is_refused_with_its_place(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text, "x")


def test_merge_keys_may_be_overridden():
    text = "base: &b {lr: 1, momentum: 2}\nother: {<<: *b, lr: 3}"
    assert parse_config(text, "x")["other"] == {"lr": 3, "momentum": 2}


def test_what_belongs_to_other_commands_is_left_out(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump({"data": {}, "stages": [], "typo": 1}))
    layer, left_out = read_layer(str(path), "fit", ARGUMENTS)
    # An unknown key stays, so that the parser can refuse it.
    assert (layer, left_out) == ({"data": {}, "typo": 1}, ["stages"])


def test_a_saved_config_gives_other_commands_only_what_all_share(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"command": "evaluate", "data": {}, "checkpoint": "judged.ckpt", "goal": "repair"}))
    assert read_layer(str(path), "unlearn", ARGUMENTS) == ({"data": {}, "goal": "repair"}, [])


def test_every_shipped_config_says_what_it_is():
    assert "selective_forgetting" in method_names()
    for name in config_names():
        assert find_config(name).is_file()
        assert len(first_line(name)) > 20, name
