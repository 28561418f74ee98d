"""Reading a deletion request: the entries of a file, and which samples they name."""

import csv
import difflib
import json
import re
import zipfile
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from lightning_unlearn.exceptions import DataError

__all__ = ["SampleNames", "nearest", "read_entries"]

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
_INTEGER = re.compile(r"[+-]?[0-9]+")
_COPY = re.compile(r"([0-9a-f]{16})#[0-9]+")
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
        At least one entry, each an integer or a non-empty text.

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
                entries = [line.strip() for line in _text(path).splitlines()]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check that it may be opened.") from error
    entries = [e for e in entries if e != ""]
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


def _from_npy(path: Path) -> list[str | int]:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an array of integers or texts ({error}); write it with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays; write one array with numpy.save.")
    if array.ndim != 1:
        raise DataError(f"{path} holds an array of shape {array.shape}; needed: one dimension, one entry per sample.")
    if array.dtype == np.bool_:
        raise DataError(f"{path} holds booleans; needed: indices. Write numpy.flatnonzero(mask) in place of the mask.")
    if array.dtype.kind not in "iuU":
        raise DataError(f"{path} holds {array.dtype}; needed: integers or texts. Convert it before saving.")
    return [e.strip() if isinstance(e, str) else int(e) for e in array.tolist()]


def _from_json(path: Path) -> list[str | int]:
    try:
        content = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
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
    return [e.strip() if isinstance(e, str) else e for e in content]


def _from_csv(path: Path, column: str | None) -> list[str | int]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(_text(path).splitlines())]
    except csv.Error as error:
        raise DataError(f"{path} is not a table of comma-separated values ({error}).") from error
    rows = [row for row in rows if any(row)]
    if not rows:
        return []
    header = rows[0]
    if column is None:
        if max(map(len, rows)) > 1:
            raise DataError(f"{path} has the columns {', '.join(header)}; say with `column` which names the samples.")
        start = 1 if header[0].lower() in _HEADERS else 0
        return [row[0] for row in rows[start:]]
    if column not in header:
        raise DataError(f"{path} has no column {column!r}; it has {', '.join(header)}.{nearest(column, header)}")
    place = header.index(column)
    for number, row in enumerate(rows[1:], 2):
        if len(row) <= place or not row[place]:
            raise DataError(f"{path}: row {number} has nothing in column {column!r}; fill it in or remove the row.")
    return [row[place] for row in rows[1:]]


class SampleNames:
    """Finds samples by what a request calls them.

    Args:
        keys: Keys of the samples, all different.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self._by_key = {key: i for i, key in enumerate(keys)}
        self._by_content: dict[str, list[int]] = {}
        for key, i in self._by_key.items():
            if copy := _COPY.fullmatch(key):
                base = copy[1]
                self._by_content.setdefault(base, [self._by_key[base]] if base in self._by_key else []).append(i)

    @cached_property
    def _by_file_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for key, i in self._by_key.items():
            found.setdefault(PurePosixPath(key).name, []).append(i)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._by_key or name in self._by_content or name in self._by_file_name

    def find(self, name: str) -> list[int]:
        """Samples of one name.

        Args:
            name: A key, the hash of an image's content (which names all exact copies of it), or the last part
                of a path where no other sample has the same.

        Returns:
            At least one index.

        Raises:
            DataError: No sample, or samples of several folders, have this name.
        """
        if name in self._by_content:
            return self._by_content[name]
        if name in self._by_key:
            return [self._by_key[name]]
        matches = self._by_file_name.get(name, [])
        if len(matches) > 1:
            first, second = (self.keys[i] for i in matches[:2])
            raise DataError(
                f"The file name {name!r} is that of {len(matches)} samples, {first!r} and {second!r} among "
                "them; give their keys."
            )
        if not matches:
            known = self._by_key if "/" in name else [*self._by_key, *self._by_file_name]
            raise DataError(f"No training sample has the key or file name {name!r}.{nearest(name, known)}")
        return matches

    def resolve(self, entries: Sequence[str | int]) -> list[int]:
        """Samples that a request names.

        Entries are indices where all of them are integers and none is a key; else all of them are names.

        Args:
            entries: Indices, keys or file names.

        Returns:
            Indices, each once, sorted.

        Raises:
            DataError: An entry is out of range, unknown, ambiguous, or named twice.
        """
        names = [str(e) for e in entries]
        if all(_INTEGER.fullmatch(n) for n in names) and not any(n in self for n in names):
            indices = [int(n) for n in names]
            for index in indices:
                if not 0 <= index < len(self.keys):
                    raise DataError(
                        f"Index {index} is outside the training set; needed: 0 to {len(self.keys) - 1} (indices count from 0)."
                    )
            named = [[i] for i in indices]
        else:
            named = [self.find(n) for n in names]
        first: dict[int, str] = {}
        for name, found in zip(names, named, strict=True):
            # A bare hash names its copies too; that one of these is also listed by its own key is no mistake.
            explicit = self._by_key.get(name, found[0])
            if explicit in first:
                raise DataError(f"{name!r} and {first[explicit]!r} name the same sample; name each one once.")
            first[explicit] = name
        return sorted({i for found in named for i in found})
