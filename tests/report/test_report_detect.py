"""The report of a search for wrong labels: whole, harmless, and no stronger than its figures."""

import base64
import io
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.detect_schema import Detected, Pair, ScoreLine, Suspect
from lightning_unlearn.report.figures_detect import score_histogram
from lightning_unlearn.report.html import render
from lightning_unlearn.report.merging import merge
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.table import show

EVIL = '<script>alert("x")</script>'


def line(name="mean_loss", known=True, **kwargs):
    figures = {"auroc": 0.91, "precision": 0.8, "recall": 0.75, "f1": 0.774} if known else dict.fromkeys(
        ("auroc", "precision", "recall", "f1"), math.nan
    )  # fmt: skip
    return ScoreLine(
        name, "Mean loss", 1.5, "the upper part of a mixture of two", 15, 0.5, [0.1, 0.3, 1.0, 3.0], [60.0, 30.0, 10.0],
        [1.0, 6.0, 9.0] if known else [], log=True, **{**figures, **kwargs},
    )  # fmt: skip


def report(known=True, suspects=(), scores=None):
    found = Detected(
        samples=100,
        known_wrong=16 if known else None,
        suggestion_accuracy=0.9 if known else math.nan,
        scores=scores or [line(known=known), line("margin", known)],
        suspects=list(suspects),
        pairs=[Pair("cat", "dog", 7)],
    )
    return Report("detect", "pets: suspected labels", "2026-01-01T00:00:00+00:00", "repair", "detect", detected=found)


def picture():
    out = io.BytesIO()
    Image.new("L", (3, 3)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize("known", [True, False])
def test_it_survives_json_and_says_what_it_knows(known, tmp_path, capsys):
    first = report(known)
    (tmp_path / "report.json").write_text(first.to_json())
    again = Report.load(tmp_path)
    assert again.to_json() == first.to_json()
    page = render(again)
    assert page == render(first)
    assert "15 of 100 samples (15.0 %) are suspected, by mean_loss" in page
    assert ("AUROC 0.910; 80.0 % of the suspects are wrong" in page) == known
    assert ("The truth is not known here" in page) != known
    assert page.count("<svg") == 2
    assert ("wrong labels</text>" in page) == known
    assert "A mixture of two always finds two parts" in page
    assert "<img" not in page
    assert "img-src" not in page
    show(again)
    out = capsys.readouterr().out
    assert "Scores of labels" in out
    assert "suspected labels: to be looked at, not proven wrong" in out
    assert ("0.910" in out) == known
    # Columns that hold nothing are left out, in the terminal and on the page.
    for column in ("AUROC", "Precision", "Recall", "F1"):
        assert (f" {column}" in out) == (f">{column}</th>" in page) == known
    assert "\u2014" not in out


def test_logarithmic_axes_have_plain_numbers():
    def ticks(*edges):
        svg = score_histogram(replace(line(), edges=list(edges), counts=[1.0], wrong=[]), "s")
        words = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).findall(".//text")]
        return words[: words.index("mean_loss")]

    assert ticks(0.08, 3.0) == ["0.1", "0.2", "0.5", "1", "2"]
    assert ticks(3e-6, 2.0) == ["1e\u22125", "0.0001", "0.001", "0.01", "0.1", "1"]
    assert 4 <= len(ticks(1e-30, 1e6)) <= 9
    assert ticks(0.61, 0.97) == ["0.61", "0.97"]


def test_names_and_pictures_from_outside_are_harmless():
    page = render(report(suspects=[Suspect(EVIL, EVIL, EVIL, 1.0, picture()), Suspect("b", "cat", "dog", 0.9)]))
    assert "<script" not in page
    assert page.count('<img src="data:image/png;base64,') == 1
    assert "img-src data:" in page
    broken = render(report(suspects=[Suspect("a", "cat", "dog", 1.0, '"><script>'), Suspect("b", "c", "d", 1.0, "aGk=")]))
    assert "<script" not in broken
    assert broken.count('src="data:image/png;base64,"') == 2


def test_it_is_not_merged_with_models(tmp_path):
    with pytest.raises(ConfigError, match="holds no models to compare"):
        merge([report(), report()])
    lines = report().to_csv().splitlines()
    assert "auroc" in lines[0]
    assert lines[1].startswith("score,mean_loss")
