"""A forget rule by a score of every sample: how memorised it is, how hard to forget, how suspect its label."""

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.request import nearest, read_array
from lightning_unlearn.data.tables import as_known, read_rows
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError, UnlearnError

__all__ = [
    "ByScore",
    "check_highest",
    "checked_count",
    "count_above",
    "highest_first",
    "read_column",
    "read_scores",
    "scored",
]

_NEEDED = "a score for every sample, as .csv with a header"
# What `detect` says of a sample beside its scores.
_ABOUT = ("key", "index", "label", "suggested", "suspected")


class ByScore(ForgetRule):
    """The samples with the highest or the lowest score in a file, such as `lightning-unlearn scores` writes.

    Samples without a score are never chosen. Where scores are equal, the draw decides, so that another `forget_seed` chooses
    others of them.

    Args:
        path: `.csv` with a header, a column `key` and one or more columns of scores (an empty cell: no score; rows of samples
            that no longer exist are passed over; the columns `index`, `label`, `suggested` and `suspected` of `detect` count
            as no scores), or `.npy` with one number per training sample in their order (NaN: no score).
        column: Column of a `.csv` file with several scores.
        end: Which end of the scores is forgotten, `highest` or `lowest`.
        count: How many samples, at least 1.
        fraction: In place of `count`, part of the training samples that have a score, in (0, 1]; the nearest whole number, at
            least one.

    Raises:
        DataError: Not exactly one of `count` and `fraction` is given, or one is out of range, or `end` is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        column: str | None = None,
        end: Literal["highest", "lowest"] = "highest",
        count: int | None = None,
        fraction: float | None = None,
    ) -> None:
        if (count is None) == (fraction is None):
            given = "neither" if count is None else f"both {count} and {fraction}"
            raise DataError(f"Of count and fraction {given} was given; needed: one of them.")
        check_highest(count, None, DataError)
        if fraction is not None and (isinstance(fraction, bool) or not 0 < fraction <= 1):
            raise DataError(f"fraction is {fraction}; needed: above 0, at most 1 (0.04 forgets 4 % of the samples).")
        if end not in ("highest", "lowest"):
            raise DataError(f"end is {end!r}; needed: 'highest' or 'lowest'.")
        self.path = Path(path)
        self.column = column
        self.end = end
        self.count = count
        self.fraction = fraction

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        pool, scores = scored(read_scores(self.path, samples.keys, self.column), candidates, self.path)
        count = self._count(len(pool))
        ranked = highest_first(samples, pool, scores if self.end == "highest" else -scores, seed)
        return Selection(ranked[:count].sort().values, [])

    def _count(self, n: int) -> int:
        """How many of n samples with a score are chosen."""
        if self.fraction is not None:
            return max(1, round(self.fraction * n))
        assert self.count is not None  # checked in the constructor
        return checked_count(self.count, n, self.path)

    def describe(self) -> str:
        """One plain line."""
        size = f"{self.count}" if self.fraction is None else f"{self.fraction * 100:.4g} %"
        return f"{size} {self.end} by {self.column or 'score'} in {self.path.name}"


def check_highest(count: int | None, quantile: float | None, error: type[UnlearnError]) -> None:
    """Refuse what says nothing about how many of the highest scores are meant.

    Args:
        count: So many, at least 1; None: not given.
        quantile: Those above this quantile, in (0, 1); None: not given.
        error: What is raised where one is out of range.
    """
    if count is not None and (isinstance(count, bool) or count < 1):
        raise error(f"count is {count}; needed: at least one sample.")
    if quantile is not None and not 0 < quantile < 1:
        raise error(f"quantile is {quantile}; needed: above 0 and below 1 (0.9 chooses the highest tenth).")


def count_above(quantile: float, n: int) -> int:
    """How many of n scores lie above a quantile of theirs.

    Args:
        quantile: In (0, 1).
        n: Scores.

    Returns:
        n - ceil(quantile n); what float arithmetic adds to a whole number does not count.
    """
    return n - math.ceil(quantile * n - 1e-9)


def checked_count(count: int, n: int, path: Path) -> int:
    """A count of samples that are there.

    Args:
        count: How many are asked for.
        n: How many have a score.
        path: Where the scores come from, for the message.

    Returns:
        The count.

    Raises:
        DataError: There are fewer.
    """
    if count > n:
        raise DataError(f"count is {count}, but {path} has scores for only {n} training samples; ask for fewer.")
    return count


def scored(scores: Tensor, candidates: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """The candidates that have a score.

    Args:
        scores: Of all training samples, (N,), NaN for those without.
        candidates: Indices, (M,), int64.
        path: Where the scores come from, for the message.

    Returns:
        Indices, (P,), and their scores, (P,).

    Raises:
        DataError: There is none.
    """
    own = scores[candidates]
    pool = candidates[~own.isnan()]
    if len(pool) == 0:
        raise DataError(f"{path} has no score for any of the {len(candidates)} training samples. Was it made from other data?")
    return pool, own[~own.isnan()]


def highest_first(samples: Samples, pool: Tensor, scores: Tensor, seed: int) -> Tensor:
    """Samples by their score; where scores are equal, the draw decides.

    Args:
        samples: The training set.
        pool: Sample indices, (P,), int64.
        scores: Their scores, (P,).
        seed: Seed of the draw.

    Returns:
        The indices, the highest score first.
    """
    drawn = order(samples.hashes[pool], seed, "forget")
    return pool[drawn[torch.argsort(scores[drawn], stable=True, descending=True)]]


def read_scores(path: str | Path, keys: Sequence[str], column: str | None = None, first: bool = False) -> Tensor:
    """Scores of samples from a file.

    Args:
        path: See `ByScore`.
        keys: Keys of all training samples, all different.
        column: Column of a `.csv` file with several scores.
        first: Whether without a name the first one will do.

    Returns:
        (N,), float64, one per key in their order; NaN where the file has none.

    Raises:
        DataError: The file is missing, unreadable, of another kind or size, lacks the column, names a sample twice, or holds
            something that is no finite number (in a `.npy` file NaN says that there is none).
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".csv", ".npy"):
        raise DataError(f"{path}: the ending {path.suffix!r} is not known; needed: .csv or .npy.")
    if ending == ".npy" and column is not None:
        raise DataError(f"{path}: column {column!r} was given, but only .csv files have columns. Leave it out.")
    if not path.is_file():
        raise DataError(f"{path}: no such file; needed: {_NEEDED}. `lightning-unlearn scores` and `detect` write one.")
    return _from_array(path, len(keys)) if ending == ".npy" else _from_table(path, keys, column, first)


def _from_array(path: Path, n: int) -> Tensor:
    array = read_array(path, "numbers")
    if len(array) != n or array.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {len(array)} of {array.dtype}; needed: one number for each of {n} training samples.")
    scores = torch.from_numpy(array.astype(np.float64))
    if bool(scores.isinf().any()):
        entry = int(scores.isinf().nonzero()[0])
        raise DataError(f"{path}: entry {entry} is infinite; needed: finite numbers, or NaN for samples without one.")
    return scores


def _from_table(path: Path, keys: Sequence[str], column: str | None, first: bool) -> Tensor:
    position = {key: i for i, key in enumerate(keys)}
    scores = torch.full((len(keys),), math.nan, dtype=torch.float64)
    for number, key, cell in read_column(path, column, position, first):
        if key in position and cell:
            scores[position[key]] = _number(path, number, cell)
    return scores


def _number(path: Path, row: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}: row {row} has {cell[:40]!r} where a score belongs; needed: a finite number, or an empty cell for a "
            "sample without one."
        )
    return value


def read_column(path: Path, column: str | None, known: Collection[str], first: bool = False) -> Iterator[tuple[int, str, str]]:
    """The cells of one column of a table of samples.

    Args:
        path: A `.csv` file with a header and a column `key`.
        column: Its name; None: the only one that holds scores.
        known: Keys of the samples. One that is not among them as it stands counts without the spaces around it.
        first: Whether without a name the first one with scores will do.

    Yields:
        Number of the row in the file, key, and cell; each key once.

    Raises:
        DataError: The file is missing, unreadable or no such table, lacks the column, or names a sample twice.
    """
    rows = read_rows(path, _NEEDED)
    header = rows[0] if rows else []
    if "key" not in header:
        raise DataError(f"{path} begins with {', '.join(header) or 'nothing'}; needed: a header with `key` and scores.")
    others = [name for name in header if name not in _ABOUT]
    if column is None and (not others or (len(others) > 1 and not first)):
        listed = ", ".join(others) or "none besides `key`"
        raise DataError(f"{path} has the columns {listed}; say with `column` which holds the scores.")
    wanted = others[0] if column is None else column
    if wanted == "key":
        raise DataError(f"{path}: the column `key` names samples and holds no scores; it has {', '.join(header)}.")
    if wanted not in header:
        raise DataError(f"{path} has no column {wanted!r}; it has {', '.join(header)}.{nearest(wanted, header)}")
    seen: set[str] = set()
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} cells and the header {len(header)}; needed: as many.")
        key = as_known(row[header.index("key")], known)
        if key in seen:
            raise DataError(f"{path} has two rows for the sample {key!r}; keep one.")
        seen.add(key)
        yield number, key, row[header.index(wanted)].strip()
