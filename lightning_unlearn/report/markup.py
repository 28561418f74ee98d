"""Pieces of a page. Text from outside enters through `text` alone, which escapes it."""

import html
import re
from collections.abc import Sequence

from lightning_unlearn.report.labels import MISSING, plain

__all__ = [
    "Html",
    "code",
    "each",
    "figure",
    "filled",
    "fold",
    "grid",
    "name",
    "paragraph",
    "raw",
    "section",
    "table",
    "text",
]


# Where a long name may go on in a new line: SelectiveForgetting, layer1.0.conv1, some_class.
JOINT = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[._/])(?=[A-Za-z])")


class Html(str):
    """Text that is markup already; any other text is escaped on its way into a page."""

    __slots__ = ()


def text(value: str) -> Html:
    """Escape text.

    Args:
        value: Any text.

    Returns:
        One harmless line; what is `Html` already stays as it is.
    """
    return value if isinstance(value, Html) else Html(html.escape(plain(value), quote=True))


def name(value: str) -> Html:
    """Escape a name and keep its direction of writing from reaching beyond it.

    Args:
        value: Any text.

    Returns:
        Markup.
    """
    parts = JOINT.split(value) if len(value) > 14 else [value]
    return Html(f"<bdi>{'<wbr>'.join(text(part) for part in parts)}</bdi>")


def code(value: str) -> Html:
    """Escape text of several lines and keep its shape.

    Args:
        value: Any text.

    Returns:
        A block of it.
    """
    lines = "\n".join(text(line) for line in value.rstrip("\n").split("\n"))
    return Html(f'<pre tabindex="0"><code>{lines}</code></pre>')


def raw(*parts: str) -> Html:
    """Join pieces of a page.

    Args:
        parts: Text is escaped, `Html` is not.

    Returns:
        Markup.
    """
    return Html("".join(text(part) for part in parts))


def paragraph(*sentences: str, css: str = "") -> Html:
    """Make a paragraph.

    Args:
        sentences: Text is escaped; empty ones are left out.
        css: Class of the paragraph.

    Returns:
        Markup; empty without a sentence.
    """
    body = " ".join(text(sentence) for sentence in sentences if sentence)
    return Html(f"<p{_css(css)}>{body}</p>") if body else Html("")


def section(title: str, *parts: str) -> Html:
    """Make a section.

    Args:
        title: Its heading.
        parts: Its content; text is escaped.

    Returns:
        Markup; empty without content.
    """
    body = raw(*parts)
    return Html(f"<section><h2>{text(title)}</h2>{body}</section>\n") if body else Html("")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: int = 1,
    marked: Sequence[str] = (),
    caption: str = "",
    dropped: bool = False,
) -> Html:
    """Make a table that scrolls inside itself where it is too wide.

    Args:
        head: Of the columns.
        rows: Cells; the first of each is its heading.
        words: How many columns, from the left, hold words; the others hold numbers and are aligned right.
        dropped: Whether columns without a single value are left out.
        marked: Class of each row, empty for none; shorter than `rows` where the rest has none.
        caption: Above it.

    Returns:
        Markup; empty without rows.
    """
    if not rows:
        return Html("")
    if dropped:
        head, rows = filled(head, rows, words)
    kinds = ["" if column < words else "n" for column in range(len(head))]
    top = "".join(f'<th scope="col"{_css(kind)}>{text(cell)}</th>' for cell, kind in zip(head, kinds, strict=True))
    body = []
    for index, cells in enumerate(rows):
        first, *others = cells
        line = f'<th scope="row">{text(first)}</th>' + "".join(
            f"<td{_css(kind)}>{text(cell)}</td>" for cell, kind in zip(others, kinds[1:], strict=True)
        )
        body.append(f"<tr{_css(marked[index] if index < len(marked) else '')}>{line}</tr>")
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll" tabindex="0"><table>{above}<thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def filled(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> tuple[list[str], list[list[str]]]:
    """Leave out the columns of a table without a single value.

    Args:
        head: Of the columns.
        rows: Cells.
        words: How many columns, from the left, stay in any case.

    Returns:
        The head and the rows of the other columns.
    """
    kept = [i for i in range(len(head)) if i < words or any(cells[i] not in ("", MISSING) for cells in rows)]
    return [head[i] for i in kept], [[cells[i] for i in kept] for cells in rows]


def figure(svg: str, caption: str) -> Html:
    """Put a drawing into the page.

    Args:
        svg: From `canvas.to_svg`; empty for none.
        caption: Below it.

    Returns:
        Markup; empty without a drawing.
    """
    return Html(f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>") if svg else Html("")


def grid(*parts: Html) -> Html:
    """Set pieces beside one another where there is room.

    Args:
        parts: Empty ones are left out.

    Returns:
        Markup; empty without pieces.
    """
    body = raw(*parts)
    return Html(f'<div class="figures">{body}</div>') if body else Html("")


def fold(title: str, body: Html) -> Html:
    """Hide what is long behind its title.

    Args:
        title: Of the piece.
        body: The piece.

    Returns:
        Markup.
    """
    return Html(f"<details><summary>{text(title)}</summary>{body}</details>")


def each(pieces: Sequence[tuple[str, Html]]) -> Html:
    """Join pieces that belong to one model each.

    Args:
        pieces: Heading and piece; empty pieces are left out.

    Returns:
        Markup; a single piece stands without its heading.
    """
    if len(pieces) == 1:
        return pieces[0][1]
    return raw(*(Html(f"<h3>{name(heading)}</h3>{piece}") for heading, piece in pieces if piece))


def _css(name: str) -> str:
    return f' class="{name}"' if name else ""
