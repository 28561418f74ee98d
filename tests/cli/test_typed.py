"""Arguments as people type them."""

import pytest

from lightning_unlearn.cli.typed import as_list, list_arguments, refuse_single_stage
from lightning_unlearn.exceptions import ConfigError


def test_which_arguments_take_lists():
    assert "references" in list_arguments("unlearn")
    assert {"methods", "seeds", "draws"} <= list_arguments("benchmark")
    # A number there.
    assert "references" not in list_arguments("benchmark")
    assert list_arguments("fit") == set()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b.ckpt", '["a/b.ckpt"]'),
        ("3", "[3]"),
        ("[a, b]", "[a, b]"),
        ("null", "null"),
        ("a: b", '["a: b"]'),
        ("x.yaml,y", '["x.yaml", "y"]'),
    ],
)
def test_one_value_is_a_list_of_one(value, expected):
    assert as_list(value) == expected


def test_a_place_in_the_list_of_stages():
    refuse_single_stage("--stages")
    for option in ("--stages.0.max_epochs", "--stages[0].max_epochs"):
        with pytest.raises(ConfigError, match="What works: print the whole config"):
            refuse_single_stage(option)
