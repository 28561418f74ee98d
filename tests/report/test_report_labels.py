"""Names and numbers as a reader sees them."""

import math
import re

import pytest

from lightning_unlearn.report.labels import METRICS, OF_REPAIR, number, plain, seconds, with_spread


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("test/acc", 93.14159, "93.1"),
        ("gap/avg", 1.604, "1.60"),
        ("cost/share", 0.07, "7.0 %"),
        ("cost/share", 0.0003, "0.03 %"),
        ("time/unlearn_s", 1234.0, "1\u202f234 s"),
        ("time/unlearn_s", 0.5, "0.50 s"),
        ("mia/auc", 0.5, "0.500"),
        ("relearn/gap", -1.26, "\u22121.3"),
        ("relearn/gap", -0.01, "0.0"),
        ("own/acc", 50.0, "50.0"),
        ("test/acc", math.nan, "\u2014"),
        ("test/acc", None, "\u2014"),
    ],
)
def test_number(name, value, text):
    assert number(name, value) == text


def test_number_with_sign():
    assert number("test/acc", 1.0, sign=True) == "+1.0"
    assert number("test/acc", 0.01, sign=True) == "0.0"


def test_spread():
    assert with_spread("test/acc", 12.34, 0.41) == "12.3 ± 0.4"
    assert with_spread("test/acc", 12.34, math.nan) == "12.3"
    assert with_spread("cost/share", 0.07, 0.002) == "7.0 ± 0.2 %"
    assert with_spread("cost/share", math.nan, math.nan) == "\u2014"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50 s"),
        (42.04, "42.0 s"),
        (723.0, "12 min 3 s"),
        (12_000.0, "3 h 20 min"),
        (math.inf, "\u2014"),
    ],
)
def test_seconds(value, text):
    assert seconds(value) == text


def test_no_label_leans_on_the_one_before_it():
    labels = [metric.label for metric in (*METRICS.values(), *OF_REPAIR.values())]
    assert [label for label in labels if re.search(r"^The same|: the same,", label)] == []


def test_plain_shows_what_would_hide():
    assert plain("a\nb\tc") == "a\\nb\\tc"
    assert plain("\u202eabc\u200f") == "\\u202eabc\\u200f"
    assert plain("\x1b[31m\x00") == "\\x1b[31m\\x00"
    assert plain("\udcff") == "\\udcff"
    plain("\udcff").encode()


def test_plain_leaves_letters_of_all_scripts():
    for text in ("Käse", "猫", "קלט", "نمی‌خواهم", "👩‍🔬", "<b>&amp;"):
        assert plain(text) == text
