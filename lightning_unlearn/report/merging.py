"""Several reports as one."""

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.schema import Report, Request, Row

__all__ = ["merge"]

TIERS = ("screen", "audit", "benchmark")


def merge(reports: list[Report]) -> Report:
    """Join reports of several runs to one benchmark.

    Args:
        reports: At least one. A single one is given back as it is.

    Returns:
        A benchmark with all requests and rows. Of two runs of the same cell, the newer report's counts.

    Raises:
        ConfigError: There is none, one is of `detect`, their goals differ, or a request's name stands for two sets of samples.
    """
    if not reports:
        raise ConfigError("There is no report to merge. Give at least one run folder that holds a report.json.")
    if len(reports) == 1:
        return reports[0]
    if any(report.kind == "detect" for report in reports):
        raise ConfigError("A search for wrong labels holds no models to compare; give reports of other commands alone.")
    goals = sorted({report.goal for report in reports})
    if len(goals) > 1:
        raise ConfigError(
            f"Reports with the goals {' and '.join(goals)} cannot be compared; merge those of one goal at a time."
        )
    ordered = sorted(reports, key=lambda report: report.created)
    warnings = _unique([warning for report in reports for warning in report.warnings])
    rows, replaced = _rows(ordered)
    if replaced:
        warnings.append(f"{replaced} rows stood in several reports with different figures; the newest count.")
    # What is claimed may not exceed the weakest report's evidence.
    tiers = _unique([report.tier for report in reports])
    tier = min(tiers, key=lambda name: TIERS.index(name) if name in TIERS else -1)
    if len(tiers) > 1:
        warnings.append(f"Reports of the tiers {', '.join(tiers)} are joined; the whole is labelled {tier}.")
    versions = _versions(ordered)
    if mixed := [name for name, version in versions.items() if " / " in version]:
        warnings.append(f"The runs used different versions of {', '.join(mixed)}.")
    titles = _unique([report.title for report in reports])
    configs = _unique([report.config for report in reports if report.config])
    levels: dict[str, dict[str, float]] = {}
    for report in ordered:
        for name, values in report.levels.items():
            levels[name] = levels.get(name, {}) | values
    return Report(
        kind="audit" if all(report.kind == "audit" for report in reports) else "benchmark",
        title=titles[0] if len(titles) == 1 else f"{len(reports)} reports compared",
        created=ordered[-1].created,
        goal=goals[0],
        tier=tier,
        requests=_requests(ordered),
        rows=rows,
        levels=levels,
        config="\n---\n".join(config.strip("\n") for config in configs) + "\n" if configs else "",
        versions=versions,
        machine="; ".join(_unique([report.machine for report in reports if report.machine])),
        warnings=warnings,
        audits=[audit for report in ordered for audit in report.audits],
    )


def _requests(reports: list[Report]) -> list[Request]:
    found: dict[str, Request] = {}
    for request in (request for report in reports for request in report.requests):
        known = found.setdefault(request.name, request)
        if known.digest != request.digest:
            raise ConfigError(
                f'The request "{request.name}" stands for two sets of samples ({known.digest[:12]} and '
                f"{request.digest[:12]}); reports of different data or splits cannot be merged."
            )
    return list(found.values())


def _rows(reports: list[Report]) -> tuple[list[Row], int]:
    found: dict[tuple[str, ...], Row] = {}
    replaced = 0
    for row in (row for report in reports for row in report.rows):
        # repr makes nan equal to itself.
        key = (row.role, row.method, row.request, str(row.seed), row.settings)
        replaced += key in found and repr(sorted(found[key].metrics.items())) != repr(sorted(row.metrics.items()))
        found[key] = row
    return list(found.values()), replaced


def _versions(reports: list[Report]) -> dict[str, str]:
    names = _unique([name for report in reports for name in report.versions])
    return {
        name: " / ".join(_unique([report.versions[name] for report in reports if name in report.versions])) for name in names
    }


def _unique(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))
