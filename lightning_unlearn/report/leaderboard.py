"""Means over draws and seeds, their order, the Pareto front, paired differences: arithmetic on rows."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from lightning_unlearn.report.comparison import DISTANCES, LIKENESSES
from lightning_unlearn.report.schema import Report, Role, Row

__all__ = [
    "Estimate",
    "Line",
    "estimate",
    "family",
    "leaderboard",
    "leaders",
    "paired_difference",
    "pareto_front",
    "ranked_by",
]

DRAW = re.compile(r",\s*draw\s+\d+\s*$")


@dataclass(frozen=True)
class Estimate:
    """A mean over cells.

    Attributes:
        mean: Mean of the finite values; nan without any.
        sd: Sample standard deviation (divisor n - 1); nan for fewer than two values.
        n: Finite values.
    """

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Line:
    """A line of the leaderboard.

    Attributes:
        family: Request family.
        method: Name of the method or baseline; "original", "retrained reference" or "reference to reference" otherwise.
        role: `level` is the line of what two references differ by.
        n: Cells (models; for the level, draws).
        metrics: By name.
    """

    family: str
    method: str
    role: Literal["method", "original", "reference", "baseline", "level"]
    n: int
    metrics: dict[str, Estimate] = field(default_factory=dict)


def family(request: str) -> str:
    """The family of a request.

    Args:
        request: Name of the request.

    Returns:
        The name without its trailing ", draw N".
    """
    return DRAW.sub("", request)


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and sample standard deviation.

    Args:
        values: Those that are not finite are left out.

    Returns:
        The estimate.
    """
    finite = [value for value in values if math.isfinite(value)]
    mean = fmean(finite) if finite else math.nan
    return Estimate(mean, stdev(finite) if len(finite) > 1 else math.nan, len(finite))


def ranked_by(goal: str) -> tuple[str, bool]:
    """The metric that orders the leaderboard.

    Args:
        goal: `repair` aims at clean test accuracy; the other goals at a small average gap to retraining.

    Returns:
        The metric, and whether a larger value is better.
    """
    return ("test/acc", True) if goal == "repair" else ("gap/avg", False)


def leaderboard(report: Report) -> list[Line]:
    """Aggregate the rows over draws and seeds.

    Args:
        report: With rows of any number of request families.

    Returns:
        For each family, in order of first appearance: its methods, best first (those without the metric
        last, by name), then the retrained references, the original, the baselines, and what two references differ by.
    """
    metric, larger = ranked_by(report.goal)

    def order(line: Line) -> tuple[bool, float, str]:
        mean = line.metrics[metric].mean if metric in line.metrics else math.nan
        known = math.isfinite(mean)
        return (not known, (-mean if larger else mean) if known else 0.0, line.method)

    lines: list[Line] = []
    for name in dict.fromkeys(family(row.request) for row in report.rows):
        rows = [row for row in report.rows if family(row.request) == name]
        methods = dict.fromkeys(row.method for row in rows if row.role == "method")
        grouped = {method: [row for row in rows if row.role == "method" and row.method == method] for method in methods}
        lines += sorted((_line(name, method, "method", of) for method, of in grouped.items()), key=order)
        if references := [row for row in rows if row.role == "reference"]:
            lines.append(_line(name, "retrained reference", "reference", references))
        if originals := [row for row in rows if row.role == "original"]:
            lines.append(_line(name, "original", "original", originals))
        others = dict.fromkeys(row.method for row in rows if row.role == "baseline")
        trained = [[row for row in rows if row.role == "baseline" and row.method == method] for method in others]
        lines += [_line(name, of[0].method, "baseline", of) for of in trained]
        levels = [values for request, values in report.levels.items() if family(request) == name and values]
        if levels:
            metrics = dict.fromkeys(key for values in levels for key in values)
            means = {key: estimate(values.get(key, math.nan) for values in levels) for key in metrics}
            lines.append(Line(name, "reference to reference", "level", len(levels), means))
    return lines


def leaders(lines: Sequence[Line], metric: str) -> list[Line]:
    """The methods that no other one stands above.

    Args:
        lines: Of one request family, in the order of the leaderboard.
        metric: What orders it.

    Returns:
        The first method and those with exactly its mean; empty where no method has the metric.
    """
    methods = [line for line in lines if line.role == "method" and metric in line.metrics and line.metrics[metric].n]
    return [line for line in methods if line.metrics[metric].mean == methods[0].metrics[metric].mean]


def _line(name: str, method: str, role: Role, rows: Sequence[Row]) -> Line:
    metrics = dict.fromkeys(key for row in rows for key in row.metrics)
    means = {key: estimate(row.metrics.get(key, math.nan) for row in rows) for key in metrics}
    if role == "reference":
        # Of two references each is compared with the other: one pair twice, which has no spread.
        for key in (key for key in metrics if key in DISTANCES or key in LIKENESSES):
            requests = dict.fromkeys(row.request for row in rows)
            values = (estimate(row.metrics.get(key, math.nan) for row in rows if row.request == of) for of in requests)
            means[key] = estimate(value.mean for value in values)
    return Line(name, method, role, len(rows), means)


def pareto_front(lines: Sequence[Line], cost: str = "cost/share", gap: str = "gap/avg", larger: bool = False) -> list[Line]:
    """The methods that no other method beats in both cost and gap.

    Args:
        lines: Of one request family; lines of other roles and without both metrics are left out.
        cost: Metric that should be small.
        gap: Another metric that should be small, or large.
        larger: Whether it should be large.

    Returns:
        Those for which no method is at least as good in both and better in one, cheapest first.
    """
    points = [
        (line.metrics[cost].mean, line.metrics[gap].mean * (-1 if larger else 1), line)
        for line in lines
        if line.role == "method" and cost in line.metrics and gap in line.metrics
    ]
    points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b <= y and (a < x or b < y) for a, b, _ in points)

    front = [(x, y, line) for x, y, line in points if not beaten(x, y)]
    return [line for _, _, line in sorted(front, key=lambda point: (point[0], point[1], point[2].method))]


def paired_difference(rows: Sequence[Row], method_a: str, method_b: str, metric: str) -> tuple[float, float, int]:
    """How much two methods differ on the same request and seed.

    The spread between forget sets is common to both methods and drops out, which it would not in a
    difference of means.

    Args:
        rows: Of any roles; only methods are looked at.
        method_a: The first method.
        method_b: The one that is subtracted.
        metric: What is compared.

    Returns:
        Mean of a - b over the pairs, its standard error sqrt(var / n) (nan for fewer than two pairs), and
        the number of pairs. Cells with several settings of one method enter by their mean.
    """
    cells: dict[str, dict[tuple[str, int], list[float]]] = {method_a: {}, method_b: {}}
    for row in rows:
        value = row.metrics.get(metric, math.nan)
        if row.role == "method" and row.method in cells and math.isfinite(value):
            cells[row.method].setdefault((row.request, row.seed), []).append(value)
    both = [key for key in cells[method_a] if key in cells[method_b]]
    found = estimate(fmean(cells[method_a][key]) - fmean(cells[method_b][key]) for key in both)
    return found.mean, found.sd / math.sqrt(found.n) if found.n else math.nan, found.n
