"""A forget rule by a score of every sample: how memorised it is, how hard to forget, how suspect its label."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.request import nearest, read_array
from lightning_unlearn.data.tables import read_rows
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

__all__ = ["ByScore", "read_scores"]

_NEEDED = "a score for every sample, as .csv with a header"


class ByScore(ForgetRule):
    """The samples with the highest or the lowest score in a file, such as `lightning-unlearn scores` writes.

    Samples without a score are never chosen. Where scores are equal, the draw decides, so that another `forget_seed` chooses
    others of them.

    Args:
        path: `.csv` with a header, a column `key` and one or more columns of scores (an empty cell: no score; rows of samples
            that no longer exist are passed over), or `.npy` with one number per training sample in their order (NaN: no
            score).
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
        if count is not None and (isinstance(count, bool) or count < 1):
            raise DataError(f"count is {count}; needed: at least one sample to forget.")
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
        scores = read_scores(self.path, samples.keys, self.column)[candidates]
        pool, scores = candidates[~scores.isnan()], scores[~scores.isnan()]
        if len(pool) == 0:
            raise DataError(
                f"{self.path} has no score for any of the {len(candidates)} training samples. Was it made from other data?"
            )
        count = max(1, round((self.fraction or 0) * len(pool))) if self.count is None else self.count
        if count > len(pool):
            raise DataError(
                f"count is {count}, but {self.path} has scores for only {len(pool)} training samples; ask for fewer."
            )
        drawn = order(samples.hashes[pool], seed, "forget")
        ranked = torch.argsort(scores[drawn], stable=True, descending=self.end == "highest")
        return Selection(pool[drawn[ranked[:count]]].sort().values, [])

    def _count(self, n: int) -> int:
        """How many of n samples with a score are chosen."""
        if self.fraction is not None:
            return max(1, round(self.fraction * n))
        assert self.count is not None  # checked in the constructor
        if self.count > n:
            raise DataError(f"count is {self.count}, but {self.path} has scores for only {n} training samples; ask for fewer.")
        return self.count

    def describe(self) -> str:
        """One plain line."""
        size = f"{self.count}" if self.fraction is None else f"{self.fraction * 100:.4g} %"
        return f"{size} {self.end} by {self.column or 'score'} in {self.path.name}"


def read_scores(path: str | Path, keys: Sequence[str], column: str | None = None) -> Tensor:
    """Scores of samples from a file.

    Args:
        path: See `ByScore`.
        keys: Keys of all training samples, all different.
        column: Column of a `.csv` file with several scores.

    Returns:
        (N,), float64, one per key in their order; NaN where the file has none.

    Raises:
        DataError: The file is missing, unreadable, of another kind or size, lacks the column, names a sample twice, or holds
            something that is no finite number.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".csv", ".npy"):
        raise DataError(f"{path}: the ending {path.suffix!r} is not known; needed: .csv or .npy.")
    if ending == ".npy" and column is not None:
        raise DataError(f"{path}: column {column!r} was given, but only .csv files have columns. Leave it out.")
    if not path.is_file():
        raise DataError(f"{path}: no such file; needed: {_NEEDED}. `lightning-unlearn scores` writes one.")
    scores = _from_array(path, len(keys)) if ending == ".npy" else _from_table(path, keys, column)
    if bool(scores.isinf().any()):
        raise DataError(f"{path} holds infinite scores; needed: finite numbers, or nothing for samples without one.")
    return scores


def _from_array(path: Path, n: int) -> Tensor:
    array = read_array(path, "numbers")
    if len(array) != n or array.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {len(array)} of {array.dtype}; needed: one number for each of {n} training samples.")
    return torch.from_numpy(array.astype(np.float64))


def _from_table(path: Path, keys: Sequence[str], column: str | None) -> Tensor:
    rows = read_rows(path, _NEEDED)
    header = rows[0] if rows else []
    if "key" not in header:
        raise DataError(f"{path} begins with {', '.join(header) or 'nothing'}; needed: a header with `key` and scores.")
    others = [name for name in header if name != "key"]
    if column is None and len(others) != 1:
        listed = ", ".join(others) or "none besides `key`"
        raise DataError(f"{path} has the columns {listed}; say with `column` which holds the scores.")
    wanted = others[0] if column is None else column
    if wanted not in others:
        raise DataError(f"{path} has no column {wanted!r}; it has {', '.join(others)}.{nearest(wanted, others)}")
    position = {key: i for i, key in enumerate(keys)}
    scores = torch.full((len(keys),), math.nan, dtype=torch.float64)
    seen: set[str] = set()
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} cells and the header {len(header)}; needed: as many.")
        key, cell = row[header.index("key")], row[header.index(wanted)]
        if key in seen:
            raise DataError(f"{path} has two rows for the sample {key!r}; keep one.")
        seen.add(key)
        if key in position and cell:
            try:
                scores[position[key]] = float(cell)
            except ValueError:
                raise DataError(f"{path}: row {number} has {cell[:40]!r} where a score belongs; needed: a number.") from None
    return scores
