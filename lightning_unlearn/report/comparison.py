"""One model beside the reference, with what two references differ by and how far the original is."""

import math
from dataclasses import dataclass
from statistics import fmean

from lightning_unlearn.report.schema import Report, Row

__all__ = [
    "DISTANCES",
    "LIKENESSES",
    "MAIN",
    "Comparison",
    "are_exact",
    "before",
    "compare",
    "heading",
    "original_of",
    "references_of",
    "subjects",
]

# Measured against a reference already: the original's own value is its distance, a level is of the same kind.
DISTANCES = (
    "gap/avg", "gap/ua", "gap/ra", "gap/ta", "gap/mia", "gap_svc/avg", "js/forget", "js/test", "kl/forget",
    "kl/test", "relearn/gap",
)  # fmt: skip
# The same, but 1 at the reference: no difference can be set against the level.
LIKENESSES = ("tow", "tow_mia")
# What two references differ by in a plain metric, where it is known under the name of a gap.
LEVELS = {"forget/acc": "gap/ua", "retain/acc": "gap/ra", "test/acc": "gap/ta", "mia/efficacy": "gap/mia"}
MAIN = (
    "gap/avg", "forget/acc", "retain/acc", "test/acc", "unseen/acc", "mia/efficacy", "mia/auc",
    "mia/tpr@1fpr", "js/forget", "js/test", "relearn/acc", "relearn/gap",
    "relearn/time",
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
        """Signed difference to the reference; a distance is its own, a likeness has none."""
        return self.value if self.metric in DISTANCES else self.value - self.reference


def subjects(report: Report) -> list[Row]:
    """The models that the report is about.

    Args:
        report: Of any kind.

    Returns:
        Its methods; where there is none, the originals that were evaluated.
    """
    return [row for row in report.rows if row.role == "method"] or [row for row in report.rows if row.role == "original"]


def are_exact(report: Report) -> bool:
    """Whether the report is about models of exact methods alone.

    Args:
        report: Of any kind.

    Returns:
        Never of a benchmark or an audit, which compare methods.
    """
    rows = subjects(report)
    return report.kind in ("unlearn", "evaluate") and bool(rows) and all(row.exact for row in rows)


def before(report: Report) -> str:
    """What the model that a request started from is called.

    Args:
        report: With the row of that model, its original.

    Returns:
        Where an earlier request made it, that it is no original.
    """
    return "Before this request" if report.is_later else "Original"


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
    levels = report.levels.get(row.request, {})
    found = []
    for name in names:
        if name not in row.metrics:
            continue
        relative = name in DISTANCES or name in LIKENESSES
        values = [value for other in references if math.isfinite(value := other.metrics.get(name, math.nan))]
        reference = math.nan if relative or not values else fmean(values)
        untouched = original.metrics.get(name, math.nan) if original is not None else math.nan
        found.append(
            Comparison(
                metric=name,
                value=row.metrics[name],
                reference=reference,
                original=untouched,
                level=levels.get(name, levels.get(LEVELS.get(name, name), math.nan)),
                original_level=untouched if relative else abs(untouched - reference),
            )
        )
    return found
