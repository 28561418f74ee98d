"""Model cards: what they say, and that no name leaves its cell."""

import dataclasses
import re
import unicodedata
from html.parser import HTMLParser

import pytest
import yaml
from markdown_it import MarkdownIt

from lightning_unlearn.export.model_card import Exported, escape, model_card
from lightning_unlearn.report.ledger_schema import PastRequest
from lightning_unlearn.report.schema import Report, Request, Row

NASTY = [
    "a | b",
    "`code` *bold* _it_ ~~gone~~",
    "<img src=x onerror=alert(1)>",
    "[link](https://example.org)",
    "https://example.org www.example.org me@example.org @someone",
    "&lt;b&gt; &#60;",
    "# head",
    "1. item",
    "12) item",
    "- item",
    "```python",
    "---",
    "===",
    "$x^2$",
    "back\\slash\\|",
    "![image](x)",
    "[^1] :smile:",
]
MODEL = Exported(
    name="resnet18",
    library="timm",
    parameters=1_234_567,
    classes=["cat", "dog"],
    mean=[0.5],
    std=[0.25],
    input_size=(1, 8, 8),
    sha256="0" * 64,
    loading="network = 1",
)


class Text(HTMLParser):
    """The text and the tags of rendered markdown."""

    def __init__(self):
        super().__init__()
        self.text, self.tags = "", set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def render(text):
    parser = Text()
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))
    return parser


def report(**changes):
    request = Request("random", "RandomFraction(0.04)", 20, 500, "abc123", copies_left=2, never_trained=3)
    rows = [
        Row("FineTune", "method", "random", 0, {"forget/acc": 90.0, "time/unlearn_s": 3.0}, notes=["odd"]),
        Row("FineTune", "method", "random", 1, {"forget/acc": 92.0}),
        Row("original", "original", "random", 0, {"forget/acc": 99.0}),
        Row("reference", "reference", "random", 0, {"forget/acc": 89.0}),
    ]
    plain = Report("unlearn", "t", "2026-01-01", "untrain", "screen", [request], rows, {"random": {"forget/acc": 0.5}})
    return dataclasses.replace(plain, **changes)


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_shows_as_written(text):
    for context in ("{}", "- {}", "| head |\n|---|\n| {} |"):
        shown = render(context.format(escape("      " + text)))
        assert text in shown.text
        assert shown.tags <= {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", ["a\nb", "a\r\n# b", "a b", "evil‮gpj", "a\x00b", "a\ud800b"])
def test_text_stays_on_one_line_and_in_its_direction(text):
    line = escape(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in line)
    line.encode("utf-8")


def test_every_name_from_outside_is_escaped():
    evil = "<script>alert(1)</script>\n# ‮| `x`"
    rows = [Row(evil, "method", evil, 0, {evil: 1.0, "forget/acc": 90.0}, notes=[evil])]
    nasty = report(created=evil, goal=evil, tier=evil, requests=[Request(evil, evil, 1, 2, evil)], rows=rows)
    nasty = dataclasses.replace(nasty, warnings=[evil], levels={evil: {evil: 1.0}})
    model = dataclasses.replace(MODEL, classes=[evil, evil])
    text = model_card(model, nasty)
    assert "<script" not in text
    assert "‮" not in text
    body = text.split("---\n", 2)[2]
    shown = render(body)
    assert "script" not in shown.tags
    assert shown.text.count("<script>alert(1)</script>") >= 10
    assert [line for line in body.split("\n") if line.startswith("# ")] == ["# resnet18, after unlearning"]


def test_head_is_yaml():
    head = yaml.safe_load(model_card(MODEL).split("---\n")[1])
    assert head["library_name"] == "timm"
    assert "machine-unlearning" in head["tags"]


def test_what_it_says():
    text = model_card(MODEL, report())
    shown = render(text.split("---\n", 2)[2]).text
    assert "20" in shown
    assert "abc123" in shown
    assert "RandomFraction(0.04)" in shown
    assert "2 exact copies of forgotten samples stayed" in shown
    unknown = model_card(MODEL, report(requests=[dataclasses.replace(report().requests[0], copies_left=None)]))
    assert "Exact copies of forgotten samples in the training data were not searched for." in unknown
    assert "3 samples that were named had never been trained on" in shown
    row = next(line for line in text.split("\n") if line.startswith("| Accuracy on forgotten samples"))
    cells = [cell.replace("\\", "").strip() for cell in row.strip("|").split("|")]
    assert cells == ["Accuracy on forgotten samples", "91.0 ± 1.4", "99.0", "89.0", "0.5"]
    assert "FineTune (unlearned, 2)" in shown
    assert "screening: not evidence of forgetting" in shown
    assert "1\u202f234\u202f567 weights" in shown
    assert "odd" in shown
    assert "no retrained reference" not in shown


def test_limits_follow_tier_and_references():
    without = report(rows=[Row("FineTune", "method", "random", 0, {"forget/acc": 90.0})], levels={})
    assert "There was no retrained reference" in model_card(MODEL, without)
    assert "between two references" not in model_card(MODEL, without)
    assert "not distinguished at this power" in model_card(MODEL, report(tier="audit"))
    assert "not about these weights" in model_card(MODEL, report(tier="benchmark"))
    for tier in ("screen", "audit", "benchmark"):
        assert "neither zero nor 50 %" in model_card(MODEL, report(tier=tier))


def test_without_a_report_it_claims_nothing():
    text = model_card(MODEL)
    assert "after unlearning" not in text
    assert "No report was exported with the weights" in text
    assert "Nothing here shows that anything was forgotten." in text


def test_a_report_without_rows():
    assert "The report holds no figures." in model_card(MODEL, report(rows=[]))


def test_many_classes_are_cut():
    text = model_card(dataclasses.replace(MODEL, classes=[f"class{i}" for i in range(100)]))
    assert "100 classes" in text
    assert "and 80 more" in text
    assert len(re.findall(r"class\d+", text)) == 20


def test_class_names_with_commas_stay_whole():
    assert "class,3; dog" in model_card(dataclasses.replace(MODEL, classes=["class,3", "dog"]))


def test_the_card_of_an_exact_method():
    exact = report(rows=[Row("Retrain", "method", "random", 0, {"forget/acc": 90.0}, exact=True)], levels={})
    text = model_card(MODEL, exact)
    assert "**exact by construction: the model was trained without the forgotten samples**" in text
    assert "not evidence" not in text
    assert "There was no retrained reference" not in text


def test_earlier_requests_are_not_hidden():
    past = [
        PastRequest(i, f"2026-01-0{i}T00:00:00", f"rule_{i} | x", 10 * i, "FineTune", "s", "b", "a", f"{i}" * 64)
        for i in (1, 2)
    ]
    text = model_card(MODEL, report(history=past))
    lines = [line.replace("\\", "") for line in text.splitlines()]
    assert "| 1 | 2026-01-01T00:00:00 | rule_1 | x | 10 samples | FineTune |" in lines
    assert "before the last request" in text
    assert f"Last hash of the ledger: `{'2' * 64}`." in text
    text = model_card(MODEL, report(history=past[:1]))
    assert f"Last hash of the ledger: `{'1' * 64}`." in text
    assert "one after another" not in text
    assert "(before, 1)" in text


def test_a_note_says_of_which_models_it_is():
    card = report()
    for row, error in zip(card.rows, (5.0, 6.0, 0.1, 4.0), strict=True):
        row.notes = [f"6 forgotten samples: the standard error is {error} points."]
    text = model_card(MODEL, card).replace("\\", "")
    assert "- FineTune: 6 forgotten samples: the standard error is 5.0 to 6.0 points." in text
    assert "- original: 6 forgotten samples: the standard error is 0.1 points." in text
