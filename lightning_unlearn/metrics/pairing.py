"""Comparing two models sample by sample, and one model with several references."""

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from statistics import fmean
from typing import TypeVar

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.outputs import Outputs, PartOutputs

__all__ = ["check_same_samples", "check_same_split", "mean_over_references", "reference_level"]

T = TypeVar("T")


def check_same_samples(a: PartOutputs, b: PartOutputs, part: str = "this part") -> None:
    """Check that two models answered on the same samples.

    Args:
        a: One model.
        b: The other.
        part: Name of the part, for the message.

    Raises:
        DataError: The sample indices, the labels or the numbers of classes differ.
    """
    if a.num_classes != b.num_classes:
        raise DataError(f"Outputs of {a.num_classes} and of {b.num_classes} classes on {part}; needed: the same classes.")
    if not (a.index.equal(b.index) and a.targets.equal(b.targets)):
        raise DataError(
            f"Outputs on {part} of two models that do not hold the same samples ({len(a)} and {len(b)}); "
            "needed: both models evaluated on one split."
        )


def check_same_split(a: Outputs, b: Outputs) -> None:
    """Check that two models answered on the same forget, retain and test samples.

    Args:
        a: One model.
        b: The other.
    """
    for name in ("forget", "retain", "test"):
        check_same_samples(a.parts()[name], b.parts()[name], name)


def mean_over_references(value: Callable[[T, T], float], unlearned: T, references: Sequence[T]) -> float:
    """Mean of `value(unlearned, reference)`: the mean of gaps, not the smaller gap to a mean reference.

    Args:
        value: Compares two models.
        unlearned: The unlearned model.
        references: At least one reference.

    Returns:
        The mean.
    """
    return fmean(value(unlearned, reference) for reference in references)


def reference_level(value: Callable[[T, T], float], references: Sequence[T], *, ordered: bool = False) -> float:
    """What `value` reads between two references: the least that an unlearned model can be expected to reach.

    Args:
        value: Compares two models, as for `mean_over_references`.
        references: At least two references.
        ordered: Whether `value` is not symmetric, so that both orders of a pair count.

    Returns:
        The mean over pairs.

    Raises:
        DataError: There are fewer than two references.
    """
    if len(references) < 2:
        raise DataError(f"{len(references)} reference; needed: at least two to compare references with each other.")
    pairs = permutations(references, 2) if ordered else combinations(references, 2)
    return fmean(value(a, b) for a, b in pairs)
