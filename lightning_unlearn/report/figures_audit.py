"""Figures of an audit, each a function from plain numbers to an SVG element."""

from collections.abc import Mapping, Sequence

from lightning_unlearn.report.audit_schema import Histogram
from lightning_unlearn.report.canvas import COLORS, blank, clip, style, to_svg
from lightning_unlearn.report.figures import log_rates

__all__ = ["against_null", "log_roc"]


def against_null(values: Histogram, name: str, label: str, described: str) -> str:
    """A histogram over samples, and that of models that never saw them.

    Args:
        values: Counts and counts of the null over the same edges.
        name: Prefix of ids.
        label: Of the x axis.
        described: What a reader who cannot see it is told.

    Returns:
        An SVG element.
    """
    with style(name):
        figure, axes = blank(240, left=48, top=34)
        axes.stairs(values.counts, values.edges, fill=True, color=COLORS["forget"], alpha=0.22)
        axes.stairs(values.counts, values.edges, color=COLORS["forget"], label="unlearned against references")
        if values.null:
            axes.stairs(
                values.null, values.edges, color=COLORS["reference"], linestyle=(0, (4, 2)), label="held-out references (zero)"
            )
        axes.set_xlim(values.edges[0], values.edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_ylabel("samples")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handlelength=1.4, columnspacing=1.2)
        return to_svg(figure, name, described)


def log_roc(curves: Mapping[str, Mapping[str, Sequence[float]]], name: str, low: float = 1e-3) -> str:
    """Operating points of the attack on two logarithmic axes, one curve per group, with the line of chance.

    Args:
        curves: `fpr` and `tpr` in 0 ... 1 by label; the first is drawn strongest.
        name: Prefix of ids.
        low: Smallest rate shown.

    Returns:
        An SVG element.
    """
    looks = (("forget", "solid"), ("reference", (0, (4, 2))), ("accent", (0, (1, 1.5))))
    with style(name):
        figure, axes = blank(330, left=58, right=26, top=34)
        log_rates(axes, low)
        for (label, curve), (color, dash) in zip(curves.items(), looks, strict=False):
            rates = [(max(x, low), max(y, low)) for x, y in zip(curve["fpr"], curve["tpr"], strict=True)]
            axes.plot(*zip(*rates, strict=True), color=COLORS[color], linestyle=dash, label=clip(label, 22))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=1.4, columnspacing=1.2)
        return to_svg(figure, name, "ROC curves of RMIA on logarithmic axes, with the line of chance")
