"""Figures that compare methods, each a function from leaderboard lines or rows to an SVG element."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from lightning_unlearn.report.canvas import COLORS, FONT, WIDTH, blank, clip, log_ticks, style, to_svg
from lightning_unlearn.report.figures import LETTER, LINE, left_margin
from lightning_unlearn.report.labels import metric, number, percent
from lightning_unlearn.report.leaderboard import Estimate, Line, pareto_front
from lightning_unlearn.report.schema import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cost_against_gap", "spread"]

MARKERS = ("o", "s", "^", "D", "v", "P")
SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")


class Box(NamedTuple):
    """A rectangle in pixels, from its left lower corner."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: "Box") -> float:
        """Area in common.

        Args:
            other: Another rectangle.

        Returns:
            Square pixels.
        """
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(width, 0.0) * max(height, 0.0)


def cost_against_gap(lines: Sequence[Line], name: str) -> str:
    """Cost against average gap: one point per method, the Pareto front, and the reference-to-reference level.

    Args:
        lines: Of one request family.
        name: Prefix of ids.

    Returns:
        An SVG element; empty text where no method has both figures.
    """
    points = [
        (line, line.metrics["cost/share"], line.metrics["gap/avg"])
        for line in lines
        if line.role == "method" and "cost/share" in line.metrics and "gap/avg" in line.metrics
    ]
    points = [point for point in points if math.isfinite(point[1].mean) and math.isfinite(point[2].mean)]
    if not points:
        return ""
    level = next((line.metrics.get("gap/avg") for line in lines if line.role == "level"), None)
    original = next((line.metrics.get("gap/avg") for line in lines if line.role == "original"), None)
    front = pareto_front(lines)
    costs = [cost.mean for _, cost, _ in points]
    logarithmic = min(costs) > 0 and max(costs) > 8 * min(costs)
    top = max(gap.mean + (gap.sd if math.isfinite(gap.sd) else 0) for _, _, gap in points)
    if level is not None and math.isfinite(level.mean):
        top = max(top, level.mean)
    shown = original is not None and math.isfinite(original.mean) and original.mean <= 2.5 * top
    if shown and original is not None:
        top = max(top, original.mean)
    with style(name):
        figure, axes = blank(360, left=52)
        if logarithmic:
            axes.set_xscale("log")
            low, high = min(costs) / 1.8, max(costs) * 3.2
        else:
            low, high = 0.0, max(costs) * 1.3 or 1.0
        axes.set_xlim(low, high)
        axes.set_ylim(0, top * 1.14)
        axes.grid()
        notes = []
        if level is not None and math.isfinite(level.mean):
            notes.append((level.mean, _level(axes, level, horizontal=True)))
        if shown and original is not None:
            axes.axhline(original.mean, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
            notes.append((original.mean, f"original {number('gap/avg', original.mean)}"))
            _note(axes, *notes[-1])
        axes.plot(
            [line.metrics["cost/share"].mean for line in front],
            [line.metrics["gap/avg"].mean for line in front],
            color=COLORS["accent"], linewidth=1.4, alpha=0.55,
        )  # fmt: skip
        for line, cost, gap in points:
            best = line in front
            color = COLORS["accent"] if best else COLORS["muted"]
            spread_x, spread_y = (e.sd if math.isfinite(e.sd) else 0.0 for e in (cost, gap))
            # A bar below zero cannot be drawn on a logarithmic axis.
            left = min(spread_x, cost.mean * 0.9) if logarithmic else spread_x
            axes.errorbar(
                cost.mean, gap.mean, xerr=[[left], [spread_x]], yerr=spread_y, fmt="none", ecolor=color,
                elinewidth=1, alpha=0.6,
            )  # fmt: skip
            axes.plot(
                cost.mean, gap.mean, "o", markersize=8, markeredgecolor=color, markeredgewidth=1.8,
                color=color if best else COLORS["surface"],
            )  # fmt: skip
        ticks = log_ticks(low, high) if logarithmic else _cost_ticks(high)
        axes.set_xticks(ticks, [percent(tick) for tick in ticks])
        axes.set_xlabel("work, as a share of retraining" + (" (log scale)" if logarithmic else ""))
        axes.set_ylabel("average gap (points)")
        figure.canvas.draw()
        place = axes.transData.transform
        spots = [(float(x), float(y)) for x, y in (place((cost.mean, gap.mean)) for _, cost, gap in points)]
        taken = [Box(x - 6, y - 6, 12, 12) for x, y in spots]
        edge = [place((line.metrics["cost/share"].mean, line.metrics["gap/avg"].mean)) for line in front]
        for (x0, y0), (x1, y1) in pairwise(edge):
            steps = [(index + 0.5) / 24 for index in range(24)]
            taken += [Box(x0 + step * (x1 - x0) - 3, y0 + step * (y1 - y0) - 3, 6, 6) for step in steps]
        for height, text in notes:
            width = len(text) * LETTER
            taken.append(Box(WIDTH - 14 - width, place((high, height))[1], width, FONT + 5))
        texts = [clip(line.method, 24) for line, _, _ in points]
        for (line, _, _), text, box, (x, y) in zip(points, texts, _place(spots, texts, taken), spots, strict=True):
            color = COLORS["ink"] if line in front else COLORS["muted"]
            axes.text(box.x, box.y + 4, text, transform=None, fontsize=FONT - 0.5, color=color)
            near_x = min(max(x, box.x), box.x + box.width)
            near_y = min(max(y, box.y), box.y + box.height)
            if math.hypot(near_x - x, near_y - y) > 14:
                ends = ([x, near_x], [y, near_y])
                axes.plot(*ends, transform=None, color=COLORS["line"], linewidth=1, zorder=1)
        return to_svg(figure, name, "Cost against average gap, one point per method, with the Pareto front")


def spread(rows: Sequence[Row], lines: Sequence[Line], name: str, key: str = "gap/avg") -> str:
    """Every cell of every method, so that the spread over draws and seeds is seen, not only its deviation.

    Args:
        rows: Of one request family.
        lines: Of the same family, in the order of the leaderboard.
        name: Prefix of ids.
        key: The metric.

    Returns:
        An SVG element; empty text where no method has the metric.
    """
    methods = [line for line in lines if line.role == "method" and key in line.metrics and line.metrics[key].n]
    if not methods:
        return ""
    labels = [clip(line.method) for line in methods]
    requests = list(dict.fromkeys(row.request for row in rows if row.role == "method"))
    level = next((line.metrics.get(key) for line in lines if line.role == "level"), None)
    if level is not None and not math.isfinite(level.mean):
        level = None
    with style(name):
        figure, axes = blank(102 + (LINE + 5) * len(methods), left=left_margin(labels), top=50)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        if level is not None:
            _level(axes, level, horizontal=False)
        for position, request in enumerate(requests):
            points = [
                (row.metrics[key], index)
                for index, line in enumerate(methods)
                for row in rows
                if row.role == "method" and row.method == line.method and row.request == request
                and math.isfinite(row.metrics.get(key, math.nan))
            ]  # fmt: skip
            if points:
                x, y = zip(*points, strict=True)
                # Draws lie a little above one another: equal values stay visible.
                shift = (position - (len(requests) - 1) / 2) * 0.5 / max(len(requests), 3)
                axes.plot(
                    x, [value + shift for value in y], MARKERS[position % len(MARKERS)], markersize=6,
                    color=COLORS[SERIES[position % len(SERIES)]], alpha=0.8, markeredgewidth=0,
                    label=_draw(request) if len(requests) <= len(SERIES) else None,
                )  # fmt: skip
        for index, line in enumerate(methods):
            mean = line.metrics[key].mean
            axes.plot([mean, mean], [index - 0.32, index + 0.32], color=COLORS["ink"], linewidth=2)
        axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        if metric(key).unit == "points" and key.startswith("gap"):
            axes.set_xlim(left=0)
        axes.set_xlabel(f"{metric(key).label.lower()} (points), bar: mean")
        if 1 < len(requests) <= len(SERIES):
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.03, 1.0), ncols=6, handlelength=0.8, columnspacing=1.0,
                borderaxespad=1.9,
            )  # fmt: skip
        return to_svg(figure, name, f"{metric(key).label}: every draw and seed of every method")


def _level(axes: "Axes", level: Estimate, horizontal: bool) -> str:
    sd = level.sd if math.isfinite(level.sd) else 0.0
    text = f"reference to reference {number('gap/avg', level.mean)}"
    if horizontal:
        axes.axhspan(max(level.mean - sd, 0), level.mean + sd, color=COLORS["reference"], alpha=0.16, lw=0)
        axes.axhline(level.mean, color=COLORS["reference"], linewidth=1.4)
        _note(axes, level.mean, text, COLORS["reference"])
    else:
        axes.axvspan(max(level.mean - sd, 0), level.mean + sd, color=COLORS["reference"], alpha=0.16, lw=0)
        axes.axvline(level.mean, color=COLORS["reference"], linewidth=1.4)
        axes.annotate(
            text, (level.mean, 1), (-2, 6), xycoords=("data", "axes fraction"), textcoords="offset points",
            color=COLORS["reference"], fontsize=FONT - 1,
        )  # fmt: skip
    return text


def _note(axes: "Axes", y: float, text: str, color: str = COLORS["muted"]) -> None:
    axes.annotate(
        text, (1, y), (-3, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        color=color, fontsize=FONT - 1,
    )  # fmt: skip


def _place(spots: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box]) -> list[Box]:
    """Put each label near its point, where it covers least of points, notes and other labels.

    Args:
        spots: The points, in pixels.
        texts: Their labels.
        taken: What is there already.

    Returns:
        One box per label.
    """
    height = FONT + 4

    def candidates(x: float, y: float, width: float) -> list[Box]:
        beside = [(gap, up) for gap in (9.0, 20.0) for up in (-8, 6, -22, 20, -36, 34)]
        across = [(-width / 2 + shift, up) for up in (9, -25, 24, -40, 40) for shift in (0.0, 20.0, -20.0)]
        moves = [*beside, *((-gap - width, up) for gap, up in beside), *across]
        return [Box(x + right, y + up, width, height) for right, up in moves]

    def cost(box: Box, point: tuple[float, float], others: Sequence[Box]) -> float:
        outside = max(56 - box.x, 0) + max(box.x + box.width - WIDTH + 4, 0) + max(48 - box.y, 0)
        away = math.hypot(max(box.x - point[0], point[0] - box.x - box.width, 0), box.y + height / 2 - point[1])
        return 40 * outside + 2 * sum(box.overlap(other) for other in others) + away

    options = [candidates(x, y, len(text) * LETTER) for (x, y), text in zip(spots, texts, strict=True)]
    boxes = [option[0] for option in options]
    # Labels that were placed early did not know of the later ones: a few rounds settle it.
    for _ in range(4):
        for index, point in enumerate(spots):
            others = [*taken, *boxes[:index], *boxes[index + 1 :]]
            boxes[index] = min(options[index], key=lambda box: cost(box, point, others))
    return boxes


def _cost_ticks(high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10(high))
    step = next(size for size in (step / 5, step / 2, step, 2 * step) if high / size <= 6)
    return [step * index for index in range(int(high / step) + 1)]


def _draw(request: str) -> str:
    return clip(request.rpartition(", ")[2] if ", draw" in request else request, 16)
