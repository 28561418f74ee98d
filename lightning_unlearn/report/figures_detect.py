"""The histogram of a score of labels, from plain numbers to an SVG element."""

import math

from lightning_unlearn.report.canvas import COLORS, FONT, blank, log_ticks, style, to_svg
from lightning_unlearn.report.detect_schema import ScoreLine

__all__ = ["score_histogram"]


def score_histogram(score: ScoreLine, name: str) -> str:
    """How many samples have which score; those with wrong labels apart, where they are known.

    Args:
        score: With its histogram.
        name: Prefix of ids.

    Returns:
        An SVG element.
    """
    with style(name):
        figure, axes = blank(240, left=58, top=34)
        right = [total - wrong for total, wrong in zip(score.counts, score.wrong or [0.0] * len(score.counts), strict=True)]
        parts = [("all samples" if not score.wrong else "right labels", right, "reference")]
        parts += [("wrong labels", score.wrong, "forget")] if score.wrong else []
        for label, counts, color in parts:
            axes.stairs(counts, score.edges, fill=True, color=COLORS[color], alpha=0.22)
            axes.stairs(counts, score.edges, color=COLORS[color], label=label)
        if score.log:
            ticks = log_ticks(score.edges[0], score.edges[-1])
            axes.set_xscale("log")
            axes.set_xticks(ticks, [_short(tick) for tick in ticks])
            axes.minorticks_off()
        if math.isfinite(score.limit):
            axes.axvline(max(score.limit, score.edges[0]), color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
            axes.text(
                0.99, 0.97, "suspected: right of the line", transform=axes.transAxes, color=COLORS["muted"],
                fontsize=FONT - 0.5, ha="right", va="top",
            )  # fmt: skip
        axes.set_xlim(score.edges[0], score.edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(score.name)
        axes.set_ylabel("samples")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handlelength=1.4, columnspacing=1.2)
        return to_svg(figure, name, f"Histogram of {score.name}: {', '.join(label for label, _, _ in parts)}")


def _short(value: float) -> str:
    """0.1, 20 or 1e-5."""
    return f"{value:.3g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-").replace("-", "\u2212")
