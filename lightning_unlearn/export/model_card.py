"""The model card of an exported model: what was forgotten, the evidence, and what it does not show."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from lightning_unlearn.report.comparison import are_exact
from lightning_unlearn.report.labels import EXACT, METRICS, SCREENING, metric, number, plain, with_spread
from lightning_unlearn.report.schema import Report, Request, Row
from lightning_unlearn.report.wording import noted
from lightning_unlearn.words import plural, were

__all__ = ["Exported", "Int8", "escape", "int8_remark", "model_card"]

# Anywhere; bare links and emoji codes; at the start of a line: heads, lists and rules.
MARKUP = re.compile(r"[\\`*_\[\]|~$@]|(?<=www)\.|:(?=[/a-zA-Z+-])|^[#+=-]|(?<=\d)[.)](?=\s)", re.IGNORECASE)
LIMITS = {
    "screen": (
        f"This is the tier *screen*: **{SCREENING}**. It looks at one unlearned model and at most a few "
        "retrained "
        "references; attacks that know many models may still tell what was trained on."
    ),
    "audit": (
        'This is the tier *audit*. It says "distinguishable from retraining" or "not distinguished at '
        'this power"; '
        "16 models on either side see only large shifts."
    ),
    "benchmark": ("This is the tier *benchmark*: about distributions over many models of a method, not about these weights."),
}
ALWAYS = (
    'No figure of a single model shows that it is "certified" or that something is "forgotten". The aim '
    "for every "
    "metric is the value of a model retrained without the samples, neither zero nor 50 %."
)


_INT8_LOADING = """\
from safetensors.torch import load_file

stored = load_file("model.int8.safetensors")
for name in [name for name in stored if name + ".scale" in stored]:
    scale = stored.pop(name + ".scale")
    stored[name] = stored[name] * scale.view(-1, *[1] * (stored[name].dim() - 1))
network.load_state_dict(stored)
"""


@dataclass(frozen=True)
class Int8:
    """What the card says about the weights rounded to 8 bits.

    Attributes:
        figures: Before and after rounding, by metric; see `check_int8`.
        size: Bytes of the file, as a share of that of the full weights.
        sha256: Of `model.int8.safetensors`.
    """

    figures: Mapping[str, tuple[float, float]]
    size: float
    sha256: str


@dataclass(frozen=True)
class Exported:
    """What the card says about the model itself.

    Attributes:
        name: Architecture, as users name it.
        library: `timm` or `pytorch`, for the Hugging Face hub.
        parameters: Number of weights.
        classes: Class names, in the order of the logits.
        mean: Of the normalisation, per channel, for pixels in 0 ... 1.
        std: The same for the standard deviation.
        input_size: Channels, height, width.
        sha256: Of `model.safetensors`.
        loading: Python that rebuilds `network` inside the folder.
        note: A sentence before it, in markdown.
        int8: The rounded weights; None: there are none.
    """

    name: str
    library: str
    parameters: int
    classes: list[str]
    mean: list[float]
    std: list[float]
    input_size: tuple[int, int, int]
    sha256: str
    loading: str
    note: str = ""
    int8: Int8 | None = None


def escape(text: str) -> str:
    """Text from outside as one harmless line of markdown.

    Args:
        text: Any text.

    Returns:
        The same, so that it shows as written: no markup, HTML, link, mention or table border comes of it.
    """
    # Without the strip, leading spaces would make a code block.
    line = plain(text).strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKUP.sub(r"\\\g<0>", line)


def model_card(model: Exported, report: Report | None = None) -> str:
    """Write the card.

    Args:
        model: The exported model.
        report: Evidence; None: the card says that there is none.

    Returns:
        Markdown with a YAML head, for `README.md`.
    """
    tags = ["image-classification", "machine-unlearning", "safetensors"]
    head = {"library_name": model.library, "pipeline_tag": "image-classification", "tags": tags}
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {escape(model.name)}, after unlearning" if report else f"# {escape(model.name)}",
        *_model(model),
        "## What was forgotten",
        *(_forgotten(report) if report else ["No report was exported with the weights: this card cannot say."]),
        "## Evidence",
        *(_evidence(report) if report else ["None was exported with the weights."]),
        "## Limits",
        *_limits(report),
        "## How to load",
        *_loading(model),
        *([] if model.int8 is None else _int8(model.int8)),
    ]
    return "\n\n".join(sections) + "\n"


def _model(model: Exported) -> list[str]:
    shown = [escape(name) for name in model.classes[:20]]
    more = f" and {len(model.classes) - 20} more (in `config.json`)" if len(model.classes) > 20 else ""
    channels, height, width = model.input_size
    return [
        "## Model",
        "\n".join([
            f"- Image classifier {escape(model.name)} with {_grouped(model.parameters)} weights.",
            f"- {len(model.classes)} classes: {('; ' if any(',' in name for name in shown) else ', ').join(shown)}{more}.",
            f"- Input: {channels} channels, {height} x {width} pixels in 0 ... 1, minus the mean "
            f"{_list(model.mean)}, divided by {_list(model.std)}.",
            f"- SHA-256 of `model.safetensors`: `{model.sha256}`.",
        ]),
    ]


def _forgotten(report: Report) -> list[str]:
    """Counts, rules and hashes; keys, by which an audit's report names the most exposed samples, are never part of a card."""
    head = ["request", "rule", "samples", "of", "hash of the sample keys"]
    table = _table(head, ([r.name, r.rule, str(r.count), str(r.of), r.digest] for r in report.requests))
    return [f"Goal: {escape(report.goal)}.", table, *_remainders(report.requests), *_earlier(report)]


def _earlier(report: Report) -> list[str]:
    """The requests that the model went through before, and the end of its ledger."""
    if not report.history:
        return []
    last = f"Last hash of the ledger: `{escape(report.history[-1].hash)}`."
    if len(report.history) < 2:
        return [last]
    head = ["number", "finished (UTC)", "rule", "forgotten", "method"]
    lines = ([str(past.number), past.time, past.rule, past.amount, past.method] for past in report.history)
    return ["Requests, one after another; the last one is that above:", _table(head, lines), last]


def _remainders(requests: list[Request]) -> list[str]:
    lines = []
    if any(request.copies_left is None for request in requests):
        lines.append("Exact copies of forgotten samples in the training data were not searched for.")
    if copies := sum(request.copies_left or 0 for request in requests):
        what = "1 exact copy" if copies == 1 else f"{copies} exact copies"
        lines.append(f"{what} of forgotten samples stayed in the training data.")
    if never := sum(request.never_trained for request in requests):
        what = f"{plural(never, 'sample')} that {were(never)} named had never been trained on"
        lines.append(f"{what} and {'is' if never == 1 else 'are'} not counted.")
    return lines


def _evidence(report: Report) -> list[str]:
    """A table: metrics downwards; the unlearned, the original and the reference models across."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for role in ("method", "original", "reference", "baseline"):
        for row in report.rows:
            if row.role == role:
                groups.setdefault((role, row.method), []).append(row)
    if not groups:
        return ["The report holds no figures."]
    present = {name for row in report.rows for name in row.metrics}
    names = [name for name in METRICS if name in present] + sorted(present - METRICS.keys())
    levels = {name: _mean(level.get(name) for level in report.levels.values()) for name in names}
    with_levels = any(math.isfinite(level) for level in levels.values())
    roles = _ROLES | ({"original": "before the last request"} if report.is_later else {})
    head = [
        "metric",
        *(f"{method} ({roles[role]}, {len(rows)})" for (role, method), rows in groups.items()),
        *(["between two references"] if with_levels else []),
    ]
    body = (
        [
            metric(name, report.goal).label,
            *(_cell(name, rows) for rows in groups.values()),
            *([number(name, levels[name])] if with_levels else []),
        ]
        for name in names
    )
    text = [
        "The number of models stands in brackets; several are shown as mean ± standard deviation. Measured "
        f"{escape(report.created)}.",
        _table(head, body),
    ]
    remarks = [*dict.fromkeys(report.warnings), *(note for note in noted(report.rows) if note not in report.warnings)]
    if remarks:
        text.append("\n".join(f"- {escape(remark)}" for remark in remarks))
    return text


_ROLES = {"method": "unlearned", "original": "before", "reference": "retrained", "baseline": "to compare with"}


def _cell(name: str, rows: list[Row]) -> str:
    values = [value for row in rows if math.isfinite(value := row.metrics.get(name, math.nan))]
    if len(values) < 2:
        return number(name, values[0] if values else None)
    return with_spread(name, statistics.fmean(values), statistics.stdev(values))


def _limits(report: Report | None) -> list[str]:
    if report is None:
        return ["Nothing here shows that anything was forgotten.", ALWAYS]
    if are_exact(report):
        return [f"The method is **{EXACT}**. The figures do not show that; they scatter as those of any retrained model."]
    lines = [LIMITS.get(report.tier, f"Tier {escape(report.tier)}: {SCREENING}."), ALWAYS]
    if report.goal != "repair" and not any(row.role == "reference" for row in report.rows):
        lines.append(
            "There was no retrained reference: how far this model is from one that never saw the samples was not measured in "
            "this report; an evaluation against references has a report of its own."
        )
    return lines


def _loading(model: Exported) -> list[str]:
    code = f"{model.loading.strip()}\nnetwork.eval()"
    return [
        *([model.note] if model.note else []),
        f"Inside this folder:\n\n```python\n{code}\n```",
        "`network(x)` gives logits for normalised images of shape (B, C, H, W).",
    ]


def int8_remark(figures: Mapping[str, tuple[float, float]]) -> str:
    """Whether the rounded weights tell forgotten from unseen samples as the full ones do.

    Args:
        figures: Before and after, by metric.

    Returns:
        A sentence.
    """
    name = "forget_unseen/auc"
    if name not in figures:
        return "There are no forgotten and unseen samples to compare, so nothing is said about forgetting."
    (before, after), low, high = figures[name], figures[f"{name}/low"][0], figures[f"{name}/high"][0]
    text = f"Forgotten against unseen samples: {number(name, before)} before and {number(name, after)} after rounding"
    interval = f"interval {number(name, low)} to {number(name, high)} of the full weights"
    if low <= after <= high:
        return f"{text}, inside the {interval}: with so many forgotten samples, rounding moves it by less than can be told."
    side = "know more of what was forgotten" if after > before else "are less certain on what was forgotten"
    return f"{text}, outside the {interval}: the rounded weights {side}. Do not hand them on as unlearned."


def _int8(model: Int8) -> list[str]:
    shown = [name for name in model.figures if not name.endswith(("/low", "/high"))]
    body = ([metric(name).label, *(number(name, value) for value in model.figures[name])] for name in shown)
    return [
        "## Int8 weights",
        f"`model.int8.safetensors` holds the same weights in {100 * model.size:.0f} % of the bytes: of every matrix and kernel "
        "`NAME` the integers (-127 ... 127, int8), and in `NAME.scale` one factor per output channel, its largest absolute "
        "weight / 127. Everything else is as in `model.safetensors`. Measured with these weights:",
        _table(["metric", "full", "int8"], body),
        int8_remark(model.figures),
        f"SHA-256: `{model.sha256}`. After the lines above:\n\n```python\n{_INT8_LOADING}```",
    ]


def _table(head: list[str], body: Iterable[list[str]]) -> str:
    lines = [[escape(cell) for cell in row] for row in (head, *body)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known else math.nan


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")


def _list(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
