"""Figures: SVG that a page can hold, the same every time, with the numbers where they belong."""

import math
import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from report_samples import EVIL, benchmark, details

from lightning_unlearn.report import figures, figures_benchmark
from lightning_unlearn.report.canvas import WIDTH
from lightning_unlearn.report.labels import plain
from lightning_unlearn.report.leaderboard import leaderboard
from lightning_unlearn.report.schema import StageRecord


def lines():
    return [line for line in leaderboard(benchmark()) if line.family == "random 4 %"]


DRAWN = {
    "margins": lambda: figures.margins(details()["margins"], "m"),
    "roc": lambda: figures.roc(details()["roc"], "r"),
    "classes": lambda: figures.per_class(details(EVIL)["per_class"], "c"),
    "layers": lambda: figures.layer_bars(dict.fromkeys(EVIL, 0.3), "l", EVIL[0], share=False),
    "mask": lambda: figures.layer_bars({"a": 0.0, "b": 1.0}, "k", "on", share=True),
    "stages": lambda: figures.stage_times([StageRecord(name, 2.0) for name in EVIL], "s"),
    "intervals": lambda: figures.intervals([("a", 0.6, 0.5, 0.7), ("b", 0.5, math.nan, math.nan)], "i"),
    "cost": lambda: figures_benchmark.cost_against_gap(lines(), "g"),
    "spread": lambda: figures_benchmark.spread(benchmark().rows, lines(), "p"),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())
def test_is_one_element_in_the_colours_of_the_page(draw):
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("viewBox").split()[2] == f"{WIDTH:g}"
    assert root.get("aria-label")
    assert "http" not in svg.replace("https://evil.example", "")
    assert root.findall(".//text")
    assert "font-family" not in svg
    assert not re.search(r"#0a00[0-9a-f]{2}", svg)
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", svg)) == set()
    assert draw() == svg


def test_settings_of_the_user_do_not_matter():
    before = figures.roc(details()["roc"], "r")
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 40, "text.usetex": True, "svg.fonttype": "path"}):
        assert figures.roc(details()["roc"], "r") == before
        assert mpl.rcParams["font.size"] == 40


def test_text_of_hostile_names_is_theirs():
    root = ElementTree.fromstring(DRAWN["classes"]())
    words = ["".join(text.itertext()) for text in root.findall(".//text")]
    for name in EVIL:
        shown = plain(name)
        assert (shown if len(shown) <= 26 else shown[:25] + "\u2026") in words


def test_two_figures_share_no_id():
    ids = [re.findall(r' id="([^"]*)"', DRAWN[name]()) for name in ("margins", "roc", "classes")]
    flat = [item for found in ids for item in found]
    assert len(flat) == len(set(flat))


def test_per_class_draws_each_part_where_it_is():
    svg = figures.per_class([{"class": "only", "forget": 60.0, "retain": None, "test": 90.0}], "c")
    root = ElementTree.fromstring(svg)
    x = {}
    for use in root.findall(".//use"):
        for part in ("forget", "test"):
            if f"--{part})" in use.get("style"):
                x.setdefault(part, float(use.get("x")))  # the marks of the legend come later
    ticks = {"".join(t.itertext()): float(t.get("x")) for t in root.findall(".//text") if "".join(t.itertext()).isdigit()}
    scale = (ticks["100"] - ticks["60"]) / 40
    assert x["forget"] == pytest.approx(ticks["60"], abs=0.5)
    assert x["test"] == pytest.approx(ticks["60"] + 30 * scale, abs=0.5)


def test_of_many_classes_the_most_different_are_drawn():
    classes = [{"class": str(i), "forget": 50.0, "retain": 99.0, "test": 50.0 + i} for i in range(40)]
    drawn = figures.most_different(classes)
    assert [entry["class"] for entry in drawn] == [str(i) for i in range(10, 40)]
    absent = [{"class": str(i), "forget": None, "retain": 99.0, "test": 50.0} for i in range(40)]
    assert len(figures.most_different([*absent, classes[0]])) == figures.ROWS
    assert classes[0] in figures.most_different([*absent, classes[0]])


def test_many_layers_are_cut_in_the_middle():
    svg = figures.layer_bars({f"layer{i}": 0.1 for i in range(100)}, "l", "x", share=True)
    assert "layer14<" in svg
    assert "layer15<" not in svg
    assert "layer85<" in svg


def test_nothing_to_compare_is_nothing_drawn():
    assert figures_benchmark.cost_against_gap([], "g") == ""
    assert figures_benchmark.spread([], [], "p") == ""


def boxes(svg, words):
    found = []
    for text in ElementTree.fromstring(svg).findall(".//text"):
        word = "".join(text.itertext())
        if word in words:
            x, y = float(text.get("x")), float(text.get("y"))
            found.append((x, y - 10, x + 5.5 * len(word), y + 2))
    return found


def test_labels_of_close_points_do_not_cover_one_another():
    names = tuple(f"Method {letter}" for letter in "ABCDEF")
    report = benchmark(names)
    for row in report.rows:
        if row.role == "method":
            i = names.index(row.method)
            row.metrics |= {"gap/avg": 2.0 + 0.05 * i, "cost/share": 0.10 + 0.004 * i}
    placed = boxes(figures_benchmark.cost_against_gap(leaderboard(report), "g"), names)
    assert len(placed) == len(names)
    for i, (left, top, right, bottom) in enumerate(placed):
        assert left > 40
        assert right < WIDTH
        for other in placed[i + 1 :]:
            assert min(right, other[2]) <= max(left, other[0]) or min(bottom, other[3]) <= max(top, other[1])
