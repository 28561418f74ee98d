"""Text files beside the images: lists of classes, and tables of attributes (owner, subclass ...)."""

import csv
import io
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.files import write_text_atomic

__all__ = ["Attributes", "as_known", "check_commas", "class_list", "read_attributes", "read_rows", "write_rows"]

_SEPARATORS = {";": "semicolons", "\t": "tabulators"}
_SYNSET = re.compile(r"(n\d{8})\s+(.+)")


class Attributes(NamedTuple):
    """Columns of a table beside the data.

    Attributes:
        columns: For each column its values, one per sample.
        named: For each column its values by what the table calls samples, those that no longer exist included; empty where
            rows are known by their position.
    """

    columns: dict[str, list[str]]
    named: dict[str, dict[str, str]]


def class_list(classes: str | Path | Sequence[str]) -> list[tuple[str, str]]:
    """Classes from a file or a list.

    Args:
        classes: Names, or a text file with one class per line: its name; or its folder, a tabulator, and how
            people call it. Lines of ImageNet's lists (`n01443537 goldfish, Carassius auratus`) need no
            tabulator.

    Returns:
        Pairs of a folder and a name; both are the same where only one is given.

    Raises:
        DataError: The file is missing or unreadable, the list is empty, or a class stands there twice.
    """
    if isinstance(classes, str | Path):
        lines = [line.strip() for line in _read(Path(classes), "a list of classes, one per line").splitlines()]
        found = [_class_of(line) for line in lines if line]
    else:
        found = [(name, name) for name in classes]
    if not found:
        raise DataError("The list of classes is empty; needed: one name per class.")
    seen: set[str] = set()
    for folder, _ in found:
        if folder in seen:
            raise DataError(f"Class {folder!r} stands twice in the list of classes; name each one once.")
        seen.add(folder)
    return found


def _class_of(line: str) -> tuple[str, str]:
    if synset := _SYNSET.fullmatch(line):
        return synset[1], synset[2]
    folder, _, name = line.partition("\t")
    return folder.strip(), name.strip() or folder.strip()


def _read(path: Path, needed: str) -> str:
    try:
        # Not read_text, which would change the line ends inside of quoted cells.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; needed: {needed}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); needed: {needed}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); needed: {needed}.") from error


def read_rows(path: Path, needed: str) -> list[list[str]]:
    """Rows of a `.csv` file without its empty lines.

    Args:
        path: The file.
        needed: What it should be, for the error.

    Returns:
        Cells; those of the first row, which names the columns, without spaces around them, the others as they are: a key may
        begin or end with spaces (see `as_known`).

    Raises:
        DataError: The file is missing, unreadable, no such table, or one with semicolons.
    """
    try:
        # Not splitlines: a file name may hold what only Unicode takes for the end of a line.
        table = [row for row in csv.reader(io.StringIO(_read(path, needed), newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} is not a table of comma-separated values ({error}).") from error
    table[:1] = [[cell.strip() for cell in row] for row in table[:1]]
    check_commas(path, table[0] if table else [])
    return table


def check_commas(path: Path, header: Sequence[str]) -> None:
    """Refuse a table whose columns something else separates, as a spreadsheet saves it in many countries.

    Args:
        path: The file.
        header: Its first row, as commas cut it.

    Raises:
        DataError: It is one cell with semicolons or tabulators in it.
    """
    found = next((word for mark, word in _SEPARATORS.items() if len(header) == 1 and mark in header[0]), None)
    if found is not None:
        raise DataError(f"{path}: its columns are separated by {found}; needed: commas. Save it as .csv with commas.")


def write_rows(path: str | Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table that `read_rows` gives back, whatever stands in its cells.

    Args:
        path: A `.csv` file.
        rows: Cells, the header first.
    """
    lines = []
    for row in rows:
        line = io.StringIO()
        # The module quotes a lone carriage return only where it ends lines with one.
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    write_text_atomic(path, "".join(lines))


def as_known(name: str, known: Container[str]) -> str:
    """A name as a file has it, or, where that is not known, without the spaces around it.

    Args:
        name: What the file has.
        known: Names that there are.

    Returns:
        The name.
    """
    return name if name in known else name.strip()


def read_attributes(path: str | Path, keys: Sequence[str], positional: bool = False) -> Attributes:
    """Columns of a table beside the data.

    Args:
        path: A `.csv` file with a header. Its column `key` holds keys, or its column `file` file names that
            only one sample has. It may have rows of samples that no longer exist.
        keys: Keys of the samples.
        positional: Whether a column `index` with the position of every sample, or one row per sample in their order, does as
            well.

    Returns:
        The other columns.

    Raises:
        DataError: The table is missing, unreadable, names a sample twice, or lacks one; or its positions are not those of the
            samples.
    """
    path = Path(path)
    table = read_rows(path, "a table of attributes as .csv with a header")
    if not table:
        raise DataError(f"{path} is empty; needed: a header, and a row for each sample.")
    header, rows = table[0], table[1:]
    if len(set(header)) < len(header):
        raise DataError(f"{path} has two columns of one name: {', '.join(header)}. Rename one.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} cells and the header {len(header)}; needed: as many.")
    names = ("key", "file", "index") if positional else ("key", "file")
    by = next((name for name in names if name in header), None)
    if by is None and not (positional and len(rows) == len(keys)):
        choice = f"or `index`, or {len(keys)} rows in the order of the samples" if positional else "or `file`"
        raise DataError(f"{path} has {len(rows)} rows and the columns {', '.join(header)}; needed: a column `key` {choice}.")
    places = _places(by, keys)
    if by == "index" and sorted(row[header.index(by)].strip() for row in rows) != sorted(places):
        # Not only those beyond the data: where a sample went, every row behind it means its neighbour.
        raise DataError(
            f"{path} names samples by `index`, in {len(rows)} rows, and there are {len(keys)} samples; needed: the positions 0 "
            f"to {len(keys) - 1}, each once. Positions shift where samples go or come: name the samples in a column `key` or "
            "`file` in place of `index`."
        )
    row_of: dict[int, list[str]] = {}
    for number, row in enumerate(rows):
        sample = number if by is None else places.get(as_known(row[header.index(by)], places))
        if sample is None:
            continue
        if sample in row_of:
            raise DataError(f"{path} has two rows for the sample {keys[sample]!r}; keep one.")
        row_of[sample] = row
    lacking = [key for i, key in enumerate(keys) if i not in row_of]
    if lacking:
        raise DataError(
            f"{path} has no row for {len(lacking)} samples, {lacking[0]!r} the first; add them, so that no "
            "sample of a person or group is overlooked."
        )
    others = {name: c for c, name in enumerate(header) if name != by}
    columns = {name: [row_of[i][c].strip() for i in range(len(keys))] for name, c in others.items()}
    if by not in ("key", "file"):
        return Attributes(columns, {})
    # As the table has a name, and without the spaces around it where no other row has that.
    called = {row[header.index(by)].strip(): row for row in rows} | {row[header.index(by)]: row for row in rows}
    return Attributes(columns, {name: {key: row[c].strip() for key, row in called.items()} for name, c in others.items()})


def _places(by: str | None, keys: Sequence[str]) -> dict[str, int]:
    """The sample of each entry in the naming column."""
    if by == "index":
        return {str(i): i for i in range(len(keys))}
    places = {key: i for i, key in enumerate(keys)}
    if by == "file":
        found: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            found.setdefault(PurePosixPath(key).name, []).append(i)
        places = {name: same[0] for name, same in found.items() if len(same) == 1} | places
    return places
