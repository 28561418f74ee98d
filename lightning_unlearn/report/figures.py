"""Figures of one model, each a function from plain numbers to an SVG element."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_unlearn.report.canvas import COLORS, FONT, blank, clip, style, to_svg
from lightning_unlearn.report.labels import number, percent, seconds
from lightning_unlearn.report.schema import ClassAccuracy, Margins, Roc, StageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ROWS",
    "layer_bars",
    "left_margin",
    "log_rates",
    "margins",
    "most_different",
    "per_class",
    "roc",
    "stage_times",
]

# Lines of a bar chart that can still be read; the tables hold them all.
ROWS = 30
LINE = 21.0
LETTER = 6.4
PARTS = {
    "forget": "forgotten",
    "unseen": "unseen",
    "test": "test",
    "reference": "forgotten, in the reference",
}


def left_margin(labels: Sequence[str]) -> float:
    """Room in pixels for labels left of an axis.

    Args:
        labels: As they will be written.

    Returns:
        Pixels.
    """
    return 16 + LETTER * max((len(label) for label in labels), default=0)


def margins(values: Margins, name: str) -> str:
    """Histograms of the margin, each with unit area.

    Args:
        values: Shared bins and counts of the parts; parts without samples are left out.
        name: Prefix of ids.

    Returns:
        An SVG element.
    """
    edges = values.get("bins", [])
    parts: list[tuple[str, list[float]]] = [
        (part, counts)
        for part, counts in (
            ("test", values.get("test", [])),
            ("unseen", values.get("unseen", [])),
            ("reference", values.get("reference", [])),
            ("forget", values.get("forget", [])),
        )
        if sum(counts) > 0
    ]
    with style(name):
        figure, axes = blank(280, left=48, top=34)
        for part, counts in parts:
            total = sum(counts)
            density = [
                count / total / (high - low) if high > low else 0.0
                for count, low, high in zip(counts, edges, edges[1:], strict=False)
            ]
            dash = (0, (4, 2)) if part == "reference" else "solid"
            axes.stairs(density, edges, color=COLORS[part], label=PARTS[part], linewidth=1.8, linestyle=dash)
            if part == "forget":
                axes.stairs(density, edges, fill=True, color=COLORS[part], alpha=0.22)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("margin (log-odds of the true class)")
        axes.set_ylabel("density")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, handlelength=1.2, columnspacing=1.0)
        shown = ", ".join(PARTS[part] for part, _ in parts)
        return to_svg(figure, name, f"Histograms of the margin: {shown}")


def roc(curve: Roc, name: str, low: float = 1e-3) -> str:
    """The attack's operating points on two logarithmic axes, with the line of chance.

    Args:
        curve: Rates in 0 ... 1, ascending.
        name: Prefix of ids.
        low: Smallest rate shown.

    Returns:
        An SVG element.
    """
    with style(name):
        figure, axes = blank(330, left=58, right=26)
        log_rates(axes, low)
        axes.plot(
            [max(rate, low) for rate in curve["fpr"]],
            [max(rate, low) for rate in curve["tpr"]],
            color=COLORS["forget"],
        )
        return to_svg(figure, name, "ROC curve of the attack on logarithmic axes, with the line of chance")


def log_rates(axes: "Axes", low: float) -> None:
    """Make axes those of an ROC curve: logarithmic rates from `low` to 1, the line of chance, a mark at 1 %.

    Args:
        axes: What is drawn on.
        low: Smallest rate shown.
    """
    axes.plot([low, 1], [low, 1], color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.text(0.25, 0.19, "chance", color=COLORS["muted"], fontsize=FONT - 0.5, ha="left", va="top")
    axes.axvline(0.01, color=COLORS["line"], linewidth=1)
    ticks = [10.0**power for power in range(round(math.log10(low)), 1)]
    for set_scale, set_limits in ((axes.set_xscale, axes.set_xlim), (axes.set_yscale, axes.set_ylim)):
        set_scale("log")
        set_limits(low, 1)
    written = [percent(tick) for tick in ticks]
    axes.set_xticks(ticks, written)
    axes.set_yticks(ticks, written)
    axes.set_xlabel("non-members called members")
    axes.set_ylabel("forgotten called members")


def most_different(classes: Sequence[ClassAccuracy]) -> list[ClassAccuracy]:
    """The classes to draw: all, or the `ROWS` whose forgotten and test accuracies lie furthest apart.

    Args:
        classes: In any order.

    Returns:
        Those to draw, in the order given.
    """

    def apart(entry: ClassAccuracy) -> float:
        forget, test = entry["forget"], entry["test"]
        return -1.0 if forget is None or test is None else abs(forget - test)

    if len(classes) <= ROWS:
        return list(classes)
    chosen = sorted(range(len(classes)), key=lambda index: -apart(classes[index]))[:ROWS]
    return [classes[index] for index in sorted(chosen)]


def per_class(classes: Sequence[ClassAccuracy], name: str) -> str:
    """Accuracy per class: forgotten and test samples as the two ends of a line, retained as a tick.

    Args:
        classes: Accuracies in percent points.
        name: Prefix of ids.

    Returns:
        An SVG element.
    """
    labels = [clip(entry["class"]) for entry in classes]
    height = 74 + LINE * len(labels)
    with style(name):
        figure, axes = blank(height, left=left_margin(labels), top=30)
        marks: dict[str, list[tuple[float, int]]] = {"forget": [], "retain": [], "test": []}
        for row, entry in enumerate(classes):
            forget, retain, test = entry["forget"], entry["retain"], entry["test"]
            if forget is not None and test is not None:
                axes.plot([forget, test], [row, row], color=COLORS["line"], linewidth=3, solid_capstyle="round")
            for part, value in (("forget", forget), ("retain", retain), ("test", test)):
                if value is not None and math.isfinite(value):
                    marks[part].append((value, row))
        for part, text, marker, size, color in (
            ("retain", "retained", "|", 11.0, "muted"),
            ("test", "test", "o", 6.5, "test"),
            ("forget", "forgotten", "o", 6.5, "forget"),
        ):
            if points := marks[part]:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, marker, color=COLORS[color], markersize=size, label=text, markeredgewidth=1.6)
        _rows(axes, labels)
        values = [value for points in marks.values() for value, _ in points]
        lowest = min(values, default=0.0)
        axes.set_xlim(0 if lowest < 50 else math.floor((lowest - 3) / 10) * 10, 101.5)
        axes.set_xlabel("accuracy (%)")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=0.8, columnspacing=1.2,
            borderaxespad=0,
        )  # fmt: skip
        return to_svg(figure, name, "Accuracy per class on forgotten, retained and test samples")


def layer_bars(values: Mapping[str, float], name: str, label: str, share: bool) -> str:
    """One bar per layer, in the order given; of many layers the first and the last `ROWS / 2`.

    Args:
        values: Per layer; not finite is drawn as nothing.
        name: Prefix of ids.
        label: Of the x axis.
        share: Whether the axis runs from 0 to 100 %.

    Returns:
        An SVG element.
    """
    from matplotlib.ticker import MaxNLocator

    items = list(values.items())
    if len(items) > ROWS:
        items = [*items[: ROWS // 2], ("\u22ee", math.nan), *items[-(ROWS // 2) :]]
    labels = [clip(layer) for layer, _ in items]
    lengths = [value if math.isfinite(value) else 0.0 for _, value in items]
    with style(name):
        figure, axes = blank(58 + LINE * len(items), left=left_margin(labels), right=52)
        axes.barh(range(len(items)), lengths, height=0.62, color=COLORS["accent"])
        _rows(axes, labels)
        largest = 1.0 if share else max(lengths, default=1.0) or 1.0
        axes.set_xlim(0, largest)
        for row, (_, value) in enumerate(items):
            if math.isfinite(value):
                _beside(axes, value, row, percent(value))
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if share else MaxNLocator(4).tick_values(0, largest)
        ticks = [float(tick) for tick in ticks if tick <= largest]
        axes.set_xticks(ticks, [percent(tick) for tick in ticks])
        axes.set_xlabel(clip(label, 60))
        return to_svg(figure, name, f"{label}, per layer")


def stage_times(stages: Sequence[StageRecord], name: str) -> str:
    """One bar per stage, its seconds, and beside it the share of retraining's work.

    Args:
        stages: In order.
        name: Prefix of ids.

    Returns:
        An SVG element.
    """
    labels = [clip(stage.name) for stage in stages]
    longest = max((stage.seconds for stage in stages if math.isfinite(stage.seconds)), default=0.0) or 1.0
    with style(name):
        figure, axes = blank(52 + (LINE + 5) * len(stages), left=left_margin(labels), right=118)
        for row, stage in enumerate(stages):
            axes.barh(row, stage.seconds, height=0.6, color=COLORS["accent"])
            _beside(
                axes,
                stage.seconds,
                row,
                seconds(stage.seconds) + (f" \u00b7 {number('cost/share', stage.share)}" if math.isfinite(stage.share) else ""),
            )
        _rows(axes, labels)
        axes.set_xlim(0, longest)
        axes.set_xticks([0, longest], ["0", seconds(longest)])
        axes.set_xlabel("wall time \u00b7 share of retraining's work")
        return to_svg(figure, name, "Wall time of each stage")


def intervals(values: Sequence[tuple[str, float, float, float]], name: str) -> str:
    """AUCs with their intervals around the line of 0.5.

    Args:
        values: Label, AUC, lower end, upper end; ends may be nan.
        name: Prefix of ids.

    Returns:
        An SVG element.
    """
    labels = [clip(label) for label, *_ in values]
    known = [number for _, *numbers in values for number in numbers if math.isfinite(number)]
    reach = max([0.1, *(abs(number - 0.5) for number in known)]) * 1.2
    with style(name):
        figure, axes = blank(52 + 26 * len(values), left=left_margin(labels), right=24)
        axes.axvline(0.5, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        for row, (_, auc, low, high) in enumerate(values):
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [row, row], color=COLORS["forget"], linewidth=3, alpha=0.45)
            axes.plot(auc, row, "o", color=COLORS["forget"], markersize=7, markeredgewidth=0)
        _rows(axes, labels)
        axes.set_xlim(max(0.5 - reach, 0), min(0.5 + reach, 1))
        axes.set_xlabel("AUC (0.5: forgotten and unseen are alike)")
        return to_svg(figure, name, "AUC of forgotten against unseen samples with its interval")


def _rows(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _beside(axes: "Axes", x: float, y: float, text: str) -> None:
    axes.annotate(
        text,
        (x, y),
        (5, 0),
        textcoords="offset points",
        va="center",
        color=COLORS["muted"],
        fontsize=FONT - 1,
    )
