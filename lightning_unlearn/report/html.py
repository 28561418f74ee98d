"""One self-contained page: no scripts, no network, nothing that the reader's browser must fetch."""

import math

from lightning_unlearn.report import (
    sections,
    sections_audit,
    sections_benchmark,
    sections_curves,
    sections_detail,
    sections_detect,
    sections_record,
)
from lightning_unlearn.report.audit_wording import ranked
from lightning_unlearn.report.comparison import before, compare, subjects
from lightning_unlearn.report.labels import SCREENING, metric, number, seconds
from lightning_unlearn.report.leaderboard import leaderboard, ranked_by
from lightning_unlearn.report.markup import Html, fold, name, paragraph, raw, section, text
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.stylesheet import STYLE
from lightning_unlearn.report.wording import remarks, summary, tier_line

__all__ = ["render"]

KINDS = {
    "unlearn": "Unlearning report",
    "evaluate": "Evaluation report",
    "benchmark": "Benchmark report",
    "audit": "Audit report",
    "detect": "Suspected labels",
}
# More notes than this are folded away.
NOTES = 6
# Even if a name got through unescaped, the browser would run and load nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
# Of a contact sheet: within the page, fetched from nowhere.
PICTURES = "; img-src data:"


def render(report: Report) -> str:
    """Write a report as a page.

    Args:
        report: Of any kind.

    Returns:
        HTML.
    """
    content = {"benchmark": _benchmark, "audit": _audit, "detect": _detected}.get(report.kind, _models)
    policy = POLICY + PICTURES * sections_detect.has_pictures(report.detected)
    body = raw(_header(report), *content(report))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(report.title or KINDS[report.kind])}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> Html:
    kicker = " \u00b7 ".join(part for part in (KINDS[report.kind], report.created) if part)
    tier = tier_line(report)
    calm = "" if tier == SCREENING else " calm"
    tiles = {"benchmark": _tiles_benchmark, "audit": _tiles_audit}.get(report.kind, _tiles)(report)
    notes = _list(remarks(report), "notes")
    if len(remarks(report)) > NOTES:
        notes = fold(f"{len(remarks(report))} notes on single models", notes)
    return raw(
        Html("<header>"),
        paragraph(kicker, css="kicker"),
        Html(f"<h1>{name(report.title or KINDS[report.kind])}</h1>"),
        Html(f'<p class="badge{calm}">{text(tier)}</p>'),
        paragraph(*summary(report), css="lead"),
        Html(f'<dl class="tiles">{"".join(tiles)}</dl>') if tiles else Html(""),
        _list([*(reason for audit in report.audits for reason in audit.void), *report.warnings], "warnings"),
        notes,
        Html("</header>\n"),
    )


def _list(items: list[str], css: str) -> Html:
    body = "".join(f"<li>{text(item)}</li>" for item in items)
    return Html(f'<ul class="{css}">{body}</ul>') if body else Html("")


def _models(report: Report) -> list[Html]:
    rows = subjects(report)
    return [
        sections.forgotten(report),
        sections.cost(report, rows),
        sections.distance(report, rows),
        sections.back(report, rows),
        sections.memory(report, rows),
        sections_detail.attack(report, rows),
        sections_detail.classes(rows),
        sections_detail.layers(rows),
        sections_detail.stages(rows),
        sections_detail.found(rows),
        sections_detail.requests(rows),
        sections_record.history(report),
        sections_record.config(report),
        sections_record.versions(report),
        sections_record.not_shown(report),
    ]


def _benchmark(report: Report) -> list[Html]:
    rows = sections_benchmark.best_cells(report)
    details = [
        sections_detail.attack(report, rows),
        sections_detail.classes(rows),
        sections_detail.layers(rows),
        sections_detail.found(rows),
    ]
    which = ", ".join(f"{row.method} on {row.request} with seed {row.seed}" for row in rows)
    note = f"The sections on the attacker, classes and layers show one model of the method that stands first: {which}."
    return [
        sections_benchmark.board(report),
        sections_curves.curves(report.curves),
        sections_benchmark.trade_off(report),
        sections_benchmark.pairs(report),
        sections_audit.audits(report),
        sections.forgotten(report),
        section("One model in detail", paragraph(note)) if any(details) else Html(""),
        *details,
        sections_benchmark.stage_table(report),
        sections_record.config(report),
        sections_record.versions(report),
        sections_record.not_shown(report),
    ]


def _audit(report: Report) -> list[Html]:
    return [
        sections_audit.audits(report),
        sections.forgotten(report),
        sections_record.config(report),
        sections_record.versions(report),
        sections_record.not_shown(report),
    ]


def _detected(report: Report) -> list[Html]:
    return [
        sections_detect.detected(report.detected),
        sections_record.config(report),
        sections_record.versions(report),
        sections_record.not_shown(report),
    ]


def _tile(label: str, value: str, *beside: str) -> Html:
    lines = "".join(f'<dd class="beside">{text(line)}</dd>' for line in beside if line)
    return Html(f'<div class="tile"><dt>{text(label)}</dt><dd class="value">{text(value)}</dd>{lines}</div>')


def _tiles(report: Report) -> list[Html]:
    rows = subjects(report)
    if len(rows) != 1:
        return []
    row = rows[0]
    found = []
    tiles = ("gap/avg", "forget/acc", "retain/acc", "test/acc")
    if report.goal == "repair":
        tiles = ("test/acc", "forget/acc", "retain/acc", "gap/avg")
    for entry in compare(report, row, tiles):
        if not math.isfinite(entry.value):
            continue
        percent = " %" if entry.metric.endswith("acc") else ""
        beside = []
        if entry.metric == "gap/avg":
            if math.isfinite(entry.level):
                beside.append(f"two references {number('gap/avg', entry.level)}")
            if math.isfinite(entry.original_level):
                beside.append(f"{before(report).lower()} {number('gap/avg', entry.original_level)}")
        else:
            if math.isfinite(entry.reference):
                beside.append(f"reference {number(entry.metric, entry.reference)} %")
            if math.isfinite(entry.original) and row.role == "method":
                beside.append(f"{before(report).lower()} {number(entry.metric, entry.original)} %")
        label = metric(entry.metric, report.goal).label
        # The label of a repair says what it is in per cent of.
        found.append(_tile(label.removesuffix(", %"), number(entry.metric, entry.value) + percent, *beside))
    auc = row.metrics.get("forget_unseen/auc", math.nan)
    if math.isfinite(auc) and "gap/avg" not in row.metrics:
        low, high = (row.metrics.get(f"forget_unseen/auc/{end}", math.nan) for end in ("low", "high"))
        interval = f"{number('mia/auc', low)} to {number('mia/auc', high)}" if math.isfinite(low + high) else ""
        found.insert(0, _tile("Forgotten against unseen, AUC", number("mia/auc", auc), interval, "alike at 0.5"))
    time, share = (row.metrics.get(key, math.nan) for key in ("time/unlearn_s", "cost/share"))
    if math.isfinite(time):
        work = f"{number('cost/share', share)} of retraining\u2019s work" if math.isfinite(share) else ""
        found.append(_tile("Time of all stages", seconds(time), work))
    elif math.isfinite(share):
        found.append(_tile("Work", number("cost/share", share), "of retraining"))
    return found


def _tiles_audit(report: Report) -> list[Html]:
    # With several forget sets, or a void audit, the sections alone say it.
    if len(report.audits) != 1 or report.audits[0].void:
        return []
    lines = ranked(report.audits[0].of())
    shown = [*[line for line in lines if line.role == "method"][:3], *(line for line in lines if line.role != "method")]
    return [
        _tile(sections_audit.shown_name(line), number("rank_auc", line.metrics["rank_auc"]), "per-sample rank AUC")
        for line in shown
    ]


def _tiles_benchmark(report: Report) -> list[Html]:
    # With several request families the leaderboards alone say it.
    lines = leaderboard(report)
    if len({line.family for line in lines}) != 1:
        return []
    key, _ = ranked_by(report.goal)
    found = []
    for line in [line for line in lines if line.role == "method" and key in line.metrics][:3]:
        cost = line.metrics.get("cost/share")
        beside = f"{number('cost/share', cost.mean)} of retraining\u2019s work" if cost is not None and cost.n else ""
        found.append(_tile(line.method, number(key, line.metrics[key].mean), metric(key).label.lower(), beside))
    for line in lines:
        if line.role in ("level", "original", "baseline") and key in line.metrics and line.metrics[key].n:
            found.append(_tile(line.method, number(key, line.metrics[key].mean), metric(key).label.lower()))
    return found
