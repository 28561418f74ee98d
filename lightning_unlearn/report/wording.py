"""What the report says in sentences, each from the figures and no stronger than them."""

import math
import re
from collections.abc import Sequence

from lightning_unlearn.report.audit_wording import audit_summary
from lightning_unlearn.report.comparison import Comparison, are_exact, compare, references_of, subjects
from lightning_unlearn.report.detect_wording import detect_summary
from lightning_unlearn.report.labels import EXACT, SCREENING, TIERS, count, number, plain, seconds, with_spread
from lightning_unlearn.report.leaderboard import Line, leaderboard, leaders, ranked_by
from lightning_unlearn.report.limits import too_few
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.thresholds import FEWEST_FORGOTTEN
from lightning_unlearn.words import plural, were

__all__ = ["against_unseen", "brought_back", "noted", "reading", "remarks", "summary", "tier_line"]

# A number in a note, without what makes a sentence of it.
_FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w|\.\d)")


def reading(difference: float, level: float) -> str:
    """How a difference compares with what two references differ by.

    Args:
        difference: To the reference.
        level: What two references differ by.

    Returns:
        "within", "2.4 times", or nothing where the level is unknown.
    """
    if not (math.isfinite(difference) and math.isfinite(level)):
        return ""
    if abs(difference) <= level:
        return "within"
    return f"{abs(difference) / level:.1f} times" if level > 0 else "beyond"


def against_unseen(report: Report, row: Row) -> str:
    """What the comparison of forgotten with unseen samples says.

    Args:
        report: That holds the row, with the number of its forgotten samples.
        row: With `forget_unseen/auc` and its interval, or without.

    Returns:
        A sentence, empty without the metric.
    """
    auc = row.metrics.get("forget_unseen/auc", math.nan)
    low, high = (row.metrics.get(f"forget_unseen/auc/{end}", math.nan) for end in ("low", "high"))
    if not math.isfinite(auc):
        return ""
    shown = number("mia/auc", auc)
    few = next((r.judged for r in report.requests if r.name == row.request and r.judged < FEWEST_FORGOTTEN), None)
    if few is not None:
        return (
            f"{plural(few, 'forgotten sample')} {'is' if few == 1 else 'are'} too few to say whether the model treats them as "
            f"it does unseen ones (AUC {shown}; needed: {FEWEST_FORGOTTEN} or more)."
        )
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"Confidence ranks forgotten above unseen samples with AUC {shown} (0.5: alike); without an interval."
    interval = f"AUC {shown}, interval {number('mia/auc', low)} to {number('mia/auc', high)}"
    if low <= 0.5 <= high:
        shift = max(0.5 - low, high - 0.5)
        return (
            "Forgotten samples are not distinguished from unseen ones by confidence at this power "
            f"({interval}; a shift of {number('mia/auc', shift)} could be missed)."
        )
    side = "more" if auc > 0.5 else "less"
    return f"Forgotten samples are distinguishable from unseen ones: the model is {side} confident on them ({interval})."


def brought_back(report: Report, row: Row) -> str:
    """What retain-only fine-tuning did.

    Args:
        report: For the level.
        row: With `relearn/gap` or `relearn/acc`, or without.

    Returns:
        A sentence, empty without the metrics.
    """
    gap, again = (row.metrics.get(key, math.nan) for key in ("relearn/gap", "relearn/acc"))
    if not math.isfinite(gap):
        if not math.isfinite(again) or report.goal == "repair":
            return ""
        if row.exact:
            return f"After fine-tuning on retained data alone, forget accuracy is {number('relearn/acc', again)} %."
        return (
            f"After fine-tuning on retained data alone, forget accuracy is {number('relearn/acc', again)} %; "
            "what a retrained model would reach is not known."
        )
    level = report.levels.get(row.request, {}).get("relearn/gap", math.nan)
    size = f"{number('relearn/gap', abs(gap))} points {'above' if gap >= 0 else 'below'}"
    text = f"After fine-tuning on retained data alone, forget accuracy lies {size} the references' mean"
    if not math.isfinite(level):
        return text + "."
    apart = f"a reference lies {number('relearn/gap', level)} from the mean of the others"
    if abs(gap) <= level:
        return f"{text}, no further than {apart}."
    return f"{text}, where {apart}" + (": part of the memory may only have been covered." if gap > 0 else ".")


def tier_line(report: Report) -> str:
    """How much the report can show, in a line.

    Args:
        report: Of any kind.

    Returns:
        What stands below the title.
    """
    return EXACT if are_exact(report) else TIERS.get(report.tier, SCREENING)


def summary(report: Report) -> list[str]:
    """The report in a few sentences.

    Args:
        report: Of any kind.

    Returns:
        Sentences in plain text.
    """
    if report.detected is not None:
        return detect_summary(report.detected)
    if report.kind == "audit":
        return audit_summary(report) or ["This report holds no results."]
    if not report.rows:
        return ["This report holds no results."]
    if report.kind == "benchmark":
        return _summary_benchmark(report)
    rows = subjects(report) or report.rows
    first = [f"{len(rows)} models; what follows is about the first."] if len(rows) > 1 else []
    return first + _summary_model(report, rows[0])


def _summary_model(report: Report, row: Row) -> list[str]:
    values = {entry.metric: entry for entry in compare(report, row)}
    sentences = []
    request = next((item for item in report.requests if item.name == row.request), None)
    if request is not None and request.count == 0:
        said = "The model was never trained on what this request names, so nothing was to be forgotten and it stays as it was."
        return [said, *_cost(row, values.get("test/acc"))]
    if request is not None:
        verb = were(request.count)
        what = "to be forgotten" if report.goal != "repair" else "to be forgotten, their labels being suspected"
        sentences.append(f"{count(request.count)} of {count(request.of)} training samples {verb} {what}.")
    sentences += _cost(row, values.get("test/acc"))
    gap, test = values.get("gap/avg"), values.get("test/acc")
    if report.goal == "repair" and test is not None and math.isfinite(test.reference):
        known = number("test/acc", test.reference)
        sentences.append(f"Models that were retrained without the forgotten samples reach {known} %.")
    elif gap is not None and math.isfinite(gap.value):
        who = "the model before this request" if report.is_later else "the original"
        sentences.append(f"Its average gap to retraining is {number('gap/avg', gap.value)} points{_levels(gap, who)}.")
    elif report.goal != "repair":
        if row.exact:
            sentences.append("The method is exact: the model is one that never saw the forgotten samples.")
        elif not references_of(report, row):
            sentences.append("No retrained reference was given, so how far it is from retraining is not known.")
        sentences.append(against_unseen(report, row))
    sentences.append(brought_back(report, row))
    return [sentence for sentence in sentences if sentence]


def _cost(row: Row, test: Comparison | None) -> list[str]:
    parts = []
    time = row.metrics.get("time/unlearn_s", math.nan)
    share = row.metrics.get("cost/share", math.nan)
    if math.isfinite(time):
        parts.append(f"took {seconds(time)}")
    if math.isfinite(share):
        parts.append(f"{'took ' if not parts else ''}{number('cost/share', share)} of the work of retraining")
    sentences = []
    name = plain(row.method)
    if parts and row.role == "method":
        sentences.append(f"{name} {' and '.join(parts)}.")
    if test is not None and math.isfinite(test.value):
        if row.role == "method" and math.isfinite(test.original):
            before, after = number("test/acc", test.original), number("test/acc", test.value)
            change = f"stayed at {after} %" if before == after else f"went from {before} % to {after} %"
            sentences.append(f"Test accuracy {change}.")
        else:
            sentences.append(f"Test accuracy is {number('test/acc', test.value)} %.")
    return sentences


def _levels(gap: Comparison, who: str = "the original") -> str:
    parts = []
    if math.isfinite(gap.level):
        parts.append(f"two retrained models differ by {number('gap/avg', gap.level)}")
    if math.isfinite(gap.original_level):
        parts.append(f"{who} is {number('gap/avg', gap.original_level)} away")
    return ", where " + " and ".join(parts) if parts else ""


def _summary_benchmark(report: Report) -> list[str]:
    lines = leaderboard(report)
    cells = [row for row in report.rows if row.role == "method"]
    methods = dict.fromkeys(row.method for row in cells)
    draws = dict.fromkeys(row.request for row in cells)
    seeds = dict.fromkeys(row.seed for row in cells)
    sentences = [
        f"{plural(len(methods), 'method')} on {plural(len(draws), 'forget set')} with "
        f"{plural(len(seeds), 'seed')}: "
        f"{plural(len(cells), 'model')}."
    ]
    for name in dict.fromkeys(line.family for line in lines):
        sentences.append(_best(report, [line for line in lines if line.family == name]))
    if too_few(report):
        sentences.append("These are too few forget sets or samples to call one method better than another.")
    return [sentence for sentence in sentences if sentence]


def _best(report: Report, lines: list[Line]) -> str:
    key, larger = ranked_by(report.goal)
    tied = leaders(lines, key)
    if not tied:
        return ""
    first = tied[0]
    value = with_spread(key, first.metrics[key].mean, first.metrics[key].sd)
    cost = first.metrics.get("cost/share")
    at = f" at {number('cost/share', cost.mean)} of retraining's work" if cost is not None and cost.n else ""
    who = f"On {plain(first.family)}, {plain(first.method)} has"
    if len(tied) > 1:
        # Their costs and spreads may differ, and stand in the table.
        value, at = number(key, first.metrics[key].mean), ""
        who = f"On {plain(first.family)}, {_some([plain(line.method) for line in tied])} tie with"
    if larger:
        return f"{who} the highest test accuracy, {value} %{at}{_beside(lines, key)}."
    level, original = (
        next((line.metrics[key].mean for line in lines if line.role == role and key in line.metrics), math.nan)
        for role in ("level", "original")
    )
    levels = _levels(Comparison(key, first.metrics[key].mean, level=level, original_level=original))
    return f"{who} the smallest average gap to retraining, {value} points{at}{levels}."


def _beside(lines: list[Line], key: str) -> str:
    """What else was trained, in the words of a repair."""
    words = {"original": "the original has", "reference": "models retrained without the forgotten samples have"}
    found = [
        f"{words.get(line.role, plain(line.method) + ':')} {with_spread(key, line.metrics[key].mean, line.metrics[key].sd)}"
        for line in lines
        if line.role in ("original", "reference", "baseline") and key in line.metrics and line.metrics[key].n
    ]
    return "; " + ", ".join(found) if found else ""


def remarks(report: Report) -> list[str]:
    """The notes of the models that the report is about, each once.

    Args:
        report: Of any kind.

    Returns:
        Sentences; with several models each names those that it was noted of. Notes on originals and references
        are left out: they would be read as the model's.
    """
    return noted(subjects(report))


def noted(rows: Sequence[Row]) -> list[str]:
    """The notes of models, each once. Where those of a method differ in figures alone, one gives the range of each figure.

    Args:
        rows: The models.

    Returns:
        Sentences; with several models each names those that it was noted of.
    """
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        for note in row.notes:
            found.setdefault((row.method, *_FIGURE.split(note)), []).append(_FIGURE.findall(note))
    said: dict[str, list[str]] = {}
    for (method, first, *texts), figures in found.items():
        ranges = (_range(column) for column in zip(*figures, strict=True))
        note = first + "".join(figure + text for figure, text in zip(ranges, texts, strict=True))
        said.setdefault(note, []).append(method)
    return [f"{_some(methods)}: {note}" if len(rows) > 1 else note for note, methods in said.items()]


def _range(figures: Sequence[str]) -> str:
    low, high = min(figures, key=float), max(figures, key=float)
    return low if low == high else f"{low} to {high}"


def _some(names: list[str]) -> str:
    shown = names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
