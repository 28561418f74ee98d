"""Rules that choose which samples to forget."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_unlearn.data.classes import class_indices, listed_classes, of_classes
from lightning_unlearn.data.gone import gone_keys, gone_of_classes, gone_with_values, refuse_lost
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.request import nearest, read_entries
from lightning_unlearn.data.sample_names import SampleNames
from lightning_unlearn.data.split import positions
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError, NothingKnownError

__all__ = [
    "ByAttribute",
    "ForgetRule",
    "ListedSamples",
    "RandomCount",
    "RandomFraction",
    "Selection",
    "WholeClasses",
]

log = logging.getLogger(__name__)


class Selection(NamedTuple):
    """What a rule chose.

    Attributes:
        indices: Samples to forget, (F,), int64, sorted, at least one.
        never_trained: Keys that the request names although the model was not trained on them: samples of the
            unseen part, or removed by an earlier request.
        caution: What must be said of the choice; empty: nothing.
    """

    indices: Tensor
    never_trained: list[str]
    caution: str = ""


class ForgetRule(ABC):
    """Chooses what to forget. A project's own rule is a subclass that overrides both methods.

    Attributes:
        withdraws: Whether unseen samples that the rule names are in no part from then on, as forgotten ones are.
    """

    withdraws: ClassVar[bool] = False

    @abstractmethod
    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples.

        Args:
            samples: The training part of the data.
            candidates: Indices that the model was trained on and that may be forgotten, (N,), int64, sorted.
            seed: Seed of the split, for rules that draw.
            class_names: Names of the classes, in the order of the labels.

        Returns:
            What to forget, all of it among `candidates`.
        """

    @abstractmethod
    def describe(self) -> str:
        """One plain line for reports, such as `random 4 %`; it names no sample and no person."""

    def other_draw(self, count: int) -> "ForgetRule | None":
        """A rule whose choice is as good an example of what this one forgets as its own: audits forget others in comparison.

        Args:
            count: How many samples it is to choose.

        Returns:
            The rule, or None, as here, where what is forgotten is not drawn at random.
        """
        return None


class _Random(ForgetRule):
    """Draws samples by keyed hash: an order that deletions elsewhere do not change."""

    def __init__(self, classes: list[str | int] | None) -> None:
        self.classes = classes

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        pool = candidates
        if self.classes is not None:
            pool = of_classes(samples, candidates, self.classes, class_names)
        if len(pool) == 0:
            raise DataError("There is no training sample to choose from.")
        drawn = order(samples.hashes[pool], seed, "forget")[: self._count(len(pool))]
        return Selection(pool[drawn].sort().values, [])

    @abstractmethod
    def _count(self, n: int) -> int:
        """How many of n samples are drawn."""

    def other_draw(self, count: int) -> ForgetRule:
        """As many samples at random, of the same classes."""
        return RandomCount(count, self.classes)

    def _within(self) -> str:
        return "" if self.classes is None else " within " + listed_classes(self.classes)


class RandomFraction(_Random):
    """A random fraction of the samples, exactly: the nearest whole number, at least one.

    Args:
        fraction: Part of the training samples, in (0, 1].
        classes: Draw within these classes only, given by label or name; the fraction is of their samples.

    Raises:
        DataError: `fraction` is out of range.
    """

    def __init__(self, fraction: float, classes: list[str | int] | None = None) -> None:
        super().__init__(classes)
        if isinstance(fraction, bool) or not 0 < fraction <= 1:
            raise DataError(f"fraction is {fraction}; needed: above 0, at most 1 (0.04 forgets 4 % of the samples).")
        self.fraction = fraction

    def _count(self, n: int) -> int:
        return max(1, round(self.fraction * n))

    def describe(self) -> str:
        """One plain line."""
        return f"random {self.fraction * 100:.4g} %{self._within()}"


class RandomCount(_Random):
    """A random choice of a given number of samples.

    Args:
        count: How many samples, at least 1.
        classes: Draw within these classes only, given by label or name.

    Raises:
        DataError: `count` is out of range.
    """

    def __init__(self, count: int, classes: list[str | int] | None = None) -> None:
        super().__init__(classes)
        if isinstance(count, bool) or count < 1:
            raise DataError(f"count is {count}; needed: at least one sample to forget.")
        self.count = count

    def _count(self, n: int) -> int:
        if self.count > n:
            raise DataError(f"count is {self.count}, but there are only {n} samples to choose from; ask for fewer.")
        return self.count

    def describe(self) -> str:
        """One plain line."""
        return f"{self.count} random samples{self._within()}"


class WholeClasses(ForgetRule):
    """All samples of some classes.

    Args:
        classes: Labels (counted from 0) or names; a name that is a number in quotes, such as "['10']".

    Raises:
        DataError: The list is empty.
    """

    # Text comes first in the annotation, or the command line would read '10' as a label.
    def __init__(self, classes: list[str | int]) -> None:
        if not classes:
            raise DataError("The list of classes is empty; needed: at least one label or name.")
        self.classes = classes

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        gone, caution = gone_of_classes(samples, class_indices(self.classes, class_names))
        refuse_lost(samples, gone, f"The {self.describe()} has" if len(self.classes) == 1 else f"The {self.describe()} have")
        return Selection(of_classes(samples, candidates, self.classes, class_names, gone, caution), [], caution)

    def describe(self) -> str:
        """One plain line."""
        return listed_classes(self.classes)


class ListedSamples(ForgetRule):
    """The samples that a file lists: a deletion request.

    Listed samples that are unseen were never trained on, so they are not forgotten; they are withdrawn: nothing looks at them
    any more. Of a class or an attribute, unseen samples stay: they are what a study compares its forgotten ones with. Where
    these are to be withdrawn too, list them.

    Args:
        path: `.txt` with one entry per line, `.csv` with one column or with a header, `.json` with a list or
            with a list named `forget`, or `.npy`. Entries are sample indices, sample keys, or file names that
            only one sample has. They count as indices only where all are integers and no
            sample has an integer for a key or file name.
        column: Column of a `.csv` file with several.
    """

    withdraws = True

    def __init__(self, path: str | Path, column: str | None = None) -> None:
        self.path = Path(path)
        self.column = column
        self._said = False

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        entries = read_entries(self.path, self.column)
        former = samples.former
        names = SampleNames(samples.keys, gone_keys(samples), former is not None and former.renumbered, samples.folders)
        try:
            wanted = names.resolve(entries)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        if names.merged and not self._said:
            # Once, however often the data are split.
            self._said = True
            log.info("note: %s lists samples twice: %d entries more than samples; each counts once.", self.path, names.merged)
        return _trained_on(samples, candidates, [names.keys[i] for i in wanted], f"{self.path} names")

    def describe(self) -> str:
        """One plain line."""
        return f"listed in {self.path.name}"


class ByAttribute(ForgetRule):
    """All samples with certain values in a column of the table beside the data: of a person, of a subclass.

    Args:
        column: Name of the column.
        values: Values that are to be forgotten.

    Raises:
        DataError: The list of values is empty.
    """

    def __init__(self, column: str, values: list[str | int]) -> None:
        if not values:
            raise DataError("The list of values is empty; needed: at least one value of the column.")
        self.column = column
        self.values = [str(v) for v in values]

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        if not samples.attributes:
            raise DataError(
                f"Attribute {self.column!r} was asked for, but the data set has no table of attributes; "
                "name one with its `attributes` argument."
            )
        if self.column not in samples.attributes:
            raise DataError(
                f"There is no attribute {self.column!r}; the data set has {', '.join(samples.attributes)}."
                f"{nearest(self.column, samples.attributes)}"
            )
        column = samples.attributes[self.column]
        chosen = set(self.values)
        gone, caution = gone_with_values(samples, self.column, chosen)
        present = {*column, *gone.values()}
        for value in self.values:
            if value not in present:
                raise DataError(f"No sample has the value {value!r} of {self.column!r}.{nearest(value, present)}")
        wanted = [samples.keys[i] for i, value in enumerate(column) if value in chosen]
        return _trained_on(samples, candidates, [*wanted, *gone], f"The chosen values of {self.column!r} name", caution)

    def describe(self) -> str:
        """One plain line; the values may be names of people and stay out of it."""
        n = len(self.values)
        return f"by attribute {self.column} ({n} value{'s' if n > 1 else ''})"


def _trained_on(samples: Samples, candidates: Tensor, wanted: Sequence[str], who: str, caution: str = "") -> Selection:
    """Parts what a request names into what can be forgotten and what the model does not know, or no more."""
    refuse_lost(samples, wanted, who)
    there = positions(wanted, samples)
    chosen = there[torch.isin(there, candidates)]
    known = {samples.keys[i] for i in chosen.tolist()}
    never = [key for key in wanted if key not in known]
    if not known:
        raise NothingKnownError(
            f"{who} {len(never)} samples, but the model was never trained on any of them: they are unseen, "
            "or an earlier request removed them. There is nothing to forget.",
            never,
            caution,
        )
    return Selection(chosen, never, caution)
