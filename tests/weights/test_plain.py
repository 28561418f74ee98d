"""Hyper-parameters as plain values."""

import enum
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from lightning_unlearn.weights.plain import plain_values, without_notes


class Text(str):
    __slots__ = ()


class Choice(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.int32(3), 3),
        (np.float64(0.5), 0.5),
        (Text("x"), "x"),
        (Choice.A, "a"),
        (Path("a/b"), "a/b"),
        ([1, (2.0, "x")], [1, (2.0, "x")]),
        (OrderedDict(a={"b": np.int64(1)}), {"a": {"b": 1}}),
    ],
)
def test_becomes_exactly_a_built_in_type(value, expected):
    result = plain_values({"x": value})["x"]
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [object(), {1, 2}, [object()], {"a": print}, np.ones(2), 1j])
def test_other_values_are_left_out_with_a_warning(value):
    with pytest.warns(UserWarning, match=rf"not saved: x \({type(value).__name__}\)"):
        assert plain_values({"x": value, "y": 1}) == {"y": 1}
    assert plain_values({"x": value}, warn=False) == {}


def test_notes_of_the_command_line_are_dropped():
    assert without_notes({"_instantiator": "x", "_class_path": "y", "a": 1}) == {"a": 1}
