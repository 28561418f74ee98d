"""One model beside the reference, with what two references differ by and how far the original is."""

import math
from dataclasses import dataclass
from statistics import fmean

from lightning_unlearn.report.schema import Report, Row

__all__ = [
    "DISTANCES",
    "MAIN",
    "Comparison",
    "compare",
    "heading",
    "original_of",
    "references_of",
    "subjects",
]

# Zero at the reference by definition: there is no reference's value to stand beside.
DISTANCES = ("gap/avg", "gap/svc", "gap_svc", "js/forget", "js/test", "kl/forget", "kl/test", "relearn/gap")
MAIN = (
    "gap/avg", "forget/acc", "retain/acc", "test/acc", "unseen/acc", "mia/efficacy", "mia/auc",
    "mia/tpr@1fpr", "js/forget", "js/test", "relearn/acc", "relearn/gap",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A metric of one model and what it must be read against; nan where unknown.

    Attributes:
        metric: Its name.
        value: Of the model.
        reference: Mean over the references.
        original: Of the original.
        level: What two references differ by.
        original_level: What the original and the reference differ by.
    """

    metric: str
    value: float
    reference: float = math.nan
    original: float = math.nan
    level: float = math.nan
    original_level: float = math.nan

    @property
    def difference(self) -> float:
        """Signed difference to the reference; a distance is its own."""
        return self.value if self.metric in DISTANCES else self.value - self.reference


def subjects(report: Report) -> list[Row]:
    """The models that the report is about.

    Args:
        report: Of any kind.

    Returns:
        Its methods; where there is none, the originals that were evaluated.
    """
    return [row for row in report.rows if row.role == "method"] or [
        row for row in report.rows if row.role == "original"
    ]


def references_of(report: Report, row: Row) -> list[Row]:
    """The references for a row's request.

    Args:
        report: That holds the row.
        row: The model.

    Returns:
        Their rows.
    """
    return [other for other in report.rows if other.role == "reference" and other.request == row.request]


def original_of(report: Report, row: Row) -> Row | None:
    """The original of a row's request.

    Args:
        report: That holds the row.
        row: The model.

    Returns:
        The original with the row's seed, else the first, else None.
    """
    found = [other for other in report.rows if other.role == "original" and other.request == row.request]
    same = [other for other in found if other.seed == row.seed]
    return next(iter(same or found), None)


def heading(row: Row) -> str:
    """What tells one model from the others of a report.

    Args:
        row: The model.

    Returns:
        Method, request and seed.
    """
    return f"{row.method}, {row.request}, seed {row.seed}"


def compare(report: Report, row: Row, names: tuple[str, ...] = MAIN) -> list[Comparison]:
    """Set a row's metrics beside the reference and the original.

    Args:
        report: That holds the row.
        row: The model.
        names: The metrics; those that the row lacks are left out.

    Returns:
        One comparison per metric, in order of `names`.
    """
    references, original = references_of(report, row), original_of(report, row)
    found = []
    for name in names:
        if name not in row.metrics:
            continue
        values = [value for other in references if math.isfinite(value := other.metrics.get(name, math.nan))]
        reference = math.nan if name in DISTANCES or not values else fmean(values)
        untouched = original.metrics.get(name, math.nan) if original is not None else math.nan
        found.append(
            Comparison(
                metric=name,
                value=row.metrics[name],
                reference=reference,
                original=untouched,
                level=report.levels.get(row.request, {}).get(name, math.nan),
                original_level=untouched if name in DISTANCES else abs(untouched - reference),
            )
        )
    return found
