"""Matplotlib figures as SVG elements in the page's colours and font, without links, the same every time."""

import math
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lightning_unlearn.report.labels import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "WIDTH", "blank", "clip", "log_ticks", "style", "to_svg"]

# One unit of the drawing is one CSS pixel where the figure has its natural size.
WIDTH = 460.0
FONT = 12.0

# Each colour that matplotlib draws in stands for a CSS variable: the page's scheme decides.
COLORS = {
    name: f"#0a00{position:02x}"
    for position, name in enumerate(
        ("ink", "muted", "line", "surface", "accent", "forget", "unseen", "test", "reference", "s1", "s2",
         "s3", "s4", "s5", "s6")
    )
}  # fmt: skip
VARIABLES = {color: f"var(--{name})" for name, color in COLORS.items()}
MARKS = re.compile("|".join(VARIABLES))
FONT_STYLE = re.compile(r"font(-[a-z]+)?:[^;]*;?\s*")
REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def style(name: str) -> Generator[None, None, None]:
    """Settings under which every figure is drawn, whatever the user's own.

    Args:
        name: Of the figure; keeps the ids of two figures of a page apart.

    Yields:
        Nothing.
    """
    import matplotlib

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "font.size": FONT,
        "axes.labelsize": FONT,
        "axes.edgecolor": COLORS["line"],
        "axes.labelcolor": COLORS["muted"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": COLORS["line"],
        "grid.linewidth": 0.7,
        "text.color": COLORS["ink"],
        "xtick.color": COLORS["line"],
        "ytick.color": COLORS["line"],
        "xtick.labelcolor": COLORS["muted"],
        "ytick.labelcolor": COLORS["muted"],
        "xtick.labelsize": FONT - 0.5,
        "ytick.labelsize": FONT - 0.5,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
        "legend.fontsize": FONT - 0.5,
        "lines.linewidth": 1.8,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)  # type: ignore[arg-type]  # its keys are literals
        # The browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        yield


def blank(
    height: float, left: float = 54.0, right: float = 14.0, top: float = 10.0, bottom: float = 44.0
) -> "tuple[Figure, Axes]":
    """An empty figure of the common width with one pair of axes, all lengths in pixels.

    Args:
        height: Of the figure.
        left: Margin for the labels of the y axis.
        right: Margin.
        top: Margin, for a legend above.
        bottom: Margin for the labels of the x axis.

    Returns:
        The figure and its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    return figure, axes


def clip(text: str, length: int = 26) -> str:
    """Text for a label.

    Args:
        text: Of any length.
        length: Letters at most.

    Returns:
        One harmless line, its end cut where it is too long.
    """
    line = plain(text)
    return line if len(line) <= length else line[: length - 1] + "\u2026"


def log_ticks(low: float, high: float) -> list[float]:
    """Where to write numbers on a logarithmic axis: left to itself, matplotlib writes formulas, which a page shows raw.

    Args:
        low: Lower end of the axis, above 0.
        high: Upper end.

    Returns:
        Ascending, about 8 at most; the two ends where no round number lies between them.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 40 else (1, 3) if high / low < 400 else (1,)
    step = 1 + len(powers) // 9
    found = [tick for power in powers[::step] for factor in factors if low <= (tick := factor * 10.0**power) <= high]
    return found or [low, high]


def to_svg(figure: "Figure", name: str, description: str) -> str:
    """Turn a figure into an `<svg>` element to stand in a page.

    Args:
        figure: Drawn with the colours of `COLORS`.
        name: Prefix of its ids.
        description: What a reader who cannot see it is told.

    Returns:
        One element without namespace, metadata, links or fixed size; its text can be selected.
    """
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<!DOCTYPE.*?>", "", out.getvalue(), flags=re.DOTALL)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'#([\w.-]+)[")]', text))
    for parent in list(root.iter()):
        parent.tail = None
        for child in list(parent):
            # Its <style> would hold for the whole page, its metadata holds links.
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.tag == "text":
            _restyle(element)
        else:
            element.text = None
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in attributes.items():
            if (key == "id" and value not in used) or (key == "transform" and value.startswith("rotate(-0 ")):
                continue
            element.set(key, _attribute(key, value, name))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", plain(description))
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = REFERENCE.sub(lambda match: f"url(#{name}-{match.group(1)})", value)
    return MARKS.sub(lambda match: VARIABLES[match.group()], value)


def _restyle(element: ElementTree.Element) -> None:
    """Keep the size, leave the family to the page."""
    declared = element.get("style", "")
    size = re.search(r"([\d.]+)px", declared)
    rest = FONT_STYLE.sub("", declared).strip().rstrip(";")
    parts = [f"font-size:{size.group(1) if size else FONT}px", *([rest] if rest else [])]
    element.set("style", ";".join(parts))
