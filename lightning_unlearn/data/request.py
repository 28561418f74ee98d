"""Reading a deletion request: the entries of a file."""

import csv
import difflib
import io
import json
import tokenize
import zipfile
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lightning_unlearn.data.tables import check_commas
from lightning_unlearn.exceptions import DataError

__all__ = ["nearest", "read_array", "read_entries"]

_FORMATS = (".txt", ".csv", ".json", ".npy")
_HEADERS = {
    "key",
    "index",
    "file",
    "filename",
    "file_name",
    "path",
    "name",
    "image",
    "sample",
    "id",
    "forget",
}
_POOL = 2000


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that looks most like another one.

    Args:
        name: What was given.
        known: What would have been possible.

    Returns:
        ` Did you mean 'x'?`, or an empty text where nothing is near.
    """
    pool = sorted(set(known))
    if len(pool) > 2 * _POOL:
        # Comparing with a million keys takes minutes; a slip of the pen is mostly behind the first letters.
        at = bisect_left(pool, name)
        pool = pool[max(0, at - _POOL) : at + _POOL]
    match = difflib.get_close_matches(name, pool, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def read_entries(path: str | Path, column: str | None = None) -> list[str | int]:
    """The entries of a request file.

    Args:
        path: `.txt` with one entry per line, `.csv` with one column or with a header, `.json` with a list or
            with a list named `forget`, or `.npy` with integers or texts.
        column: Column of a `.csv` file with several.

    Returns:
        At least one entry, each an integer or a text that is not blank; as it stands in the file, since a key may begin or end
        with spaces.

    Raises:
        DataError: The file is missing, unreadable, empty, of another kind, or holds something else.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise DataError(f"{path}: the ending {path.suffix!r} is not known; needed: one of {', '.join(_FORMATS)}.")
    if column is not None and path.suffix.lower() != ".csv":
        raise DataError(f"{path}: column {column!r} was given, but only .csv files have columns. Leave it out.")
    if not path.is_file():
        raise DataError(f"{path}: no such file; needed: the list of samples to forget.")
    try:
        match path.suffix.lower():
            case ".npy":
                entries = _from_npy(path)
            case ".json":
                entries = _from_json(path)
            case ".csv":
                entries = _from_csv(path, column)
            case _:
                # Not splitlines: a file name may hold what only Unicode takes for the end of a line.
                entries = [line.removesuffix("\n") for line in io.StringIO(_text(path), newline=None)]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check that it may be opened.") from error
    entries = [e for e in entries if not isinstance(e, str) or e.strip()]
    if not entries:
        raise DataError(f"{path} names no sample; needed: at least one index, key or file name.")
    return entries


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{path} is a binary file; needed: text in UTF-8.")
    return text


def read_array(path: Path, needed: str) -> np.ndarray:
    """The array of a `.npy` file.

    Args:
        path: The file.
        needed: What it should hold, for the error.

    Returns:
        An array of one dimension.

    Raises:
        DataError: The file holds no array, several, or one of another shape.
    """
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, TypeError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an array of {needed} ({error}); write it with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays; write one array with numpy.save.")
    if array.ndim != 1:
        raise DataError(f"{path} holds an array of shape {array.shape}; needed: one dimension, one entry per sample.")
    return array


def _from_npy(path: Path) -> list[str | int]:
    array = read_array(path, "integers or texts")
    if array.dtype == np.bool_:
        raise DataError(f"{path} holds booleans; needed: indices. Write numpy.flatnonzero(mask) in place of the mask.")
    if array.dtype.kind not in "iuU":
        raise DataError(f"{path} holds {array.dtype}; needed: integers or texts. Convert it before saving.")
    return [e if isinstance(e, str) else int(e) for e in array.tolist()]


def _from_json(path: Path) -> list[str | int]:
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Python reads no integers of thousands of digits.
        raise DataError(f"{path} is not valid JSON ({error}); needed: a list of indices or keys.") from error
    if isinstance(content, dict):
        content = content.get("forget")
    if not isinstance(content, list):
        raise DataError(f'{path} holds no list; needed: [...] or {{"forget": [...]}} with indices, keys or file names.')
    for position, entry in enumerate(content):
        if isinstance(entry, bool) or not isinstance(entry, str | int):
            kind = "a boolean" if isinstance(entry, bool) else f"a {type(entry).__name__}"
            hint = " For a mask write the positions of its true entries." if isinstance(entry, bool) else ""
            raise DataError(
                f"{path}: entry {position} is {kind}, {json.dumps(entry)[:40]}; needed: an integer index or a text.{hint}"
            )
    return content


def _from_csv(path: Path, column: str | None) -> list[str | int]:
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is not a table of comma-separated values ({error}).") from error
    rows = [(line, row) for line, row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    header = [cell.strip() for cell in rows[0][1]]
    if column is not None or not _HEADERS.isdisjoint(header[0].lower().split(";")):
        check_commas(path, header)
    if column is None and len(header) > 1:
        raise DataError(
            f"{path} has the columns {', '.join(header)}; say with --data.forget.column which names the samples. Or does an "
            "entry hold a comma? Then put it in quotes."
        )
    if column is not None and column not in header:
        raise DataError(f"{path} has no column {column!r}; it has {', '.join(header)}.{nearest(column, header)}")
    for line, row in rows:
        if len(row) > len(header):
            raise DataError(
                f"{path}: line {line} has {len(row)} fields and the first line {len(header)}. Quote an entry that holds a "
                f'comma: "{", ".join(cell.strip() for cell in row)}".'
            )
    if column is None:
        start = 1 if header[0].lower() in _HEADERS else 0
        return [row[0] for _, row in rows[start:]]
    place = header.index(column)
    for line, row in rows[1:]:
        if len(row) <= place or not row[place].strip():
            raise DataError(f"{path}: line {line} has nothing in column {column!r}; fill it in or remove the line.")
    return [row[place] for _, row in rows[1:]]
