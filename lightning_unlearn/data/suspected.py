"""A forget rule for samples whose label is suspected to be wrong, and the labels that are suggested for them."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_unlearn.data.by_score import (
    check_highest,
    checked_count,
    count_above,
    highest_first,
    read_column,
    read_scores,
    scored,
)
from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.gone import gone_keys, refuse_lost
from lightning_unlearn.data.split import positions
from lightning_unlearn.data.tables import read_rows
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError, NothingKnownError
from lightning_unlearn.words import plural

__all__ = ["SuspectedMislabels", "label_names", "read_suggested"]

log = logging.getLogger(__name__)

_MARKS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


class SuspectedMislabels(ForgetRule):
    """The samples whose label `lightning-unlearn detect` suspects.

    By default those that its file marks as suspected, which a person may have looked through and changed by hand; else, by
    one of its scores, another number of them. Samples that the file does not know are never chosen.

    Args:
        path: `scores.csv` of a run of `detect`: a column `key`, scores that are high for suspects, `suspected` with 1 or 0.
        column: The score that counts; None: the first one of the file. For `threshold`, `count` and `quantile` only.
        threshold: Those whose score is at least this.
        count: So many of the highest scores.
        quantile: Those above this quantile of the scores, in (0, 1): 0.9 chooses the highest tenth.

    Raises:
        DataError: More than one of the three is given, one is out of range, or a column without any; in `select`: nothing is
            chosen, or the file was made on other labels.
        NothingKnownError: In `select`, where the file suspects samples of these data, but none that the model knows.
    """

    def __init__(
        self,
        path: str | Path,
        column: str | None = None,
        threshold: float | None = None,
        count: int | None = None,
        quantile: float | None = None,
    ) -> None:
        limits = {"threshold": threshold, "count": count, "quantile": quantile}
        given = [f"{name} {value}" for name, value in limits.items() if value is not None]
        if len(given) > 1:
            raise DataError(f"Both {' and '.join(given)} were given; needed: one of them, or none for the marked samples.")
        if column is not None and not given:
            raise DataError(
                f"column is {column!r}, but nothing says how high a score is suspect; needed: threshold, count or quantile. "
                "Leave column out for the samples that the file marks as suspected."
            )
        if threshold is not None and not math.isfinite(threshold):
            raise DataError(f"threshold is {threshold}; needed: a finite number, in the units of the score.")
        check_highest(count, quantile, DataError)
        self.path = Path(path)
        self.column = column
        self.threshold = threshold
        self.count = count
        self.quantile = quantile
        self._said = False

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        if self.threshold is None and self.count is None and self.quantile is None:
            marked = _marked(self.path, [*samples.keys, *gone_keys(samples)])
            chosen = candidates[torch.isin(candidates, positions(marked, samples))]
            # Those that the model has forgotten may be gone.
            forgotten = frozenset() if samples.former is None else samples.former.others
            lacking = len({*marked} - {*samples.keys} - forgotten)
            if lacking and not self._said:
                # Once, however often the data are split.
                self._said = True
                log.warning(
                    "%s marks %d samples whose keys the data do not have; they are passed over. Where they were not deleted, "
                    "was the file changed, or made from other data?",
                    self.path,
                    lacking,
                )
        else:
            chosen = self._by_score(samples, candidates, seed)
        _check_labels(self.path, samples, class_names)
        if len(chosen) == 0:
            self._refuse_unknown(samples)
            raise DataError(
                f"{self.describe()}: that is none of the {len(candidates)} training samples, so there is nothing to forget. "
                "Give this rule a count or a lower threshold, or mark rows in the file; or was it made from other data?"
            )
        return Selection(chosen.sort().values, [])

    def _refuse_unknown(self, samples: Samples) -> None:
        """Say so where the file suspects samples of these data, as where a repair is repeated."""
        if self.count is not None or self.quantile is not None:
            return
        known = [*samples.keys, *gone_keys(samples)]
        if self.threshold is None:
            named = sorted({*_marked(self.path, known)} & {*known})
        else:
            scores = read_scores(self.path, known, self.column, first=True)
            named = [known[i] for i in (scores >= self.threshold).nonzero().flatten().tolist()]
        refuse_lost(samples, named, f"{self.path} suspects")
        if named:
            raise NothingKnownError(
                f"{self.path} suspects {plural(len(named), 'sample')}, but the model was never trained on any of them: they "
                "are unseen, or an earlier request removed them. There is nothing to forget.",
                named,
            )

    def _by_score(self, samples: Samples, candidates: Tensor, seed: int) -> Tensor:
        scores = read_scores(self.path, samples.keys, self.column, first=True)
        pool, scores = scored(scores, candidates, self.path)
        if self.threshold is not None:
            return pool[scores >= self.threshold]
        count = self.count
        if count is None:
            assert self.quantile is not None  # one of the three is given
            count = count_above(self.quantile, len(pool))
        return highest_first(samples, pool, scores, seed)[: checked_count(count, len(pool), self.path)]

    def describe(self) -> str:
        """One plain line."""
        by = f"by {self.column or 'the first score'} in {self.path.name}"
        if self.threshold is not None:
            return f"suspected labels: {self.threshold:g} or more {by}"
        if self.count is not None:
            return f"suspected labels: {self.count} highest {by}"
        if self.quantile is not None:
            return f"suspected labels: above the quantile {self.quantile:g} {by}"
        return f"suspected labels: as marked in {self.path.name}"


def label_names(class_names: Sequence[str]) -> list[str]:
    """Names by which a table of samples calls the classes: all different, without spaces around them.

    Args:
        class_names: Names of the classes; two of ImageNet's are the same.

    Returns:
        The names; behind those that stand for several classes the number of the class.
    """
    plain = [" ".join(name.split()) for name in class_names]
    return [name if plain.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(plain)]


def read_suggested(path: str | Path, keys: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """Labels that a file of `detect` suggests; a person may have corrected them.

    Args:
        path: Its `scores.csv`, with the columns `key` and `suggested`.
        keys: Keys of all training samples.
        class_names: Names of the classes, in the order of the labels.

    Returns:
        (N,), int64, one per key in their order; -1 where the file has none.

    Raises:
        DataError: The file is missing or no such table, or names a class that is not there.
    """
    path = Path(path)
    names = {name: i for i, name in enumerate(label_names(class_names))}
    labels = torch.full((len(keys),), -1, dtype=torch.int64)
    for number, i, name in _classes(path, "suggested", keys):
        if not name:
            continue
        if name not in names:
            raise DataError(f"{path}: row {number} suggests {name[:40]!r}, which is no class; needed: {_some(list(names))}.")
        labels[i] = names[name]
    return labels


def _classes(path: Path, column: str, keys: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Of each row of a known sample its number in the file, that of the sample, and the name of a class, or nothing."""
    position = {key: i for i, key in enumerate(keys)}
    for number, key, cell in read_column(path, column, position):
        if key in position:
            yield number, position[key], " ".join(cell.split())


def _check_labels(path: Path, samples: Samples, class_names: Sequence[str]) -> None:
    """Refuse scores of other labels than the data have; a file without labels says nothing of it."""
    if "label" not in read_rows(path, "the scores.csv of detect")[0]:
        return
    names = label_names(class_names)
    known = list(_classes(path, "label", samples.keys))
    other = sum(name != names[int(samples.targets[i])] for _, i, name in known if name)
    if other:
        raise DataError(
            f"{path} has other labels than the data for {other} of {len(known)} samples: it was made on other labels. Run "
            "detect on the run that is to be repaired; corrections belong into the column `suggested`."
        )


def _marked(path: Path, known: Sequence[str]) -> list[str]:
    """Keys that are marked, of samples that are not there, too."""
    marked = []
    for number, key, cell in read_column(path, "suspected", {*known}):
        if cell.lower() not in _MARKS:
            raise DataError(f"{path}: row {number} has {cell[:40]!r} in `suspected`; needed: 1 or 0.")
        if _MARKS[cell.lower()]:
            marked.append(key)
    return marked


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} ..."
