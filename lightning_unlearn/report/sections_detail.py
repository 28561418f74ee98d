"""What an attacker sees, what happened per class and per layer, the time per stage: sections of a page."""

import math
from collections.abc import Sequence

from lightning_unlearn.report import figures
from lightning_unlearn.report.comparison import before, compare, heading
from lightning_unlearn.report.labels import count, digits, metric, number, seconds
from lightning_unlearn.report.markup import Html, each, figure, fold, grid, name, paragraph, raw, section, table, text
from lightning_unlearn.report.schema import Report, Row

__all__ = ["attack", "classes", "found", "layers", "requests", "stages"]

ATTACK = (
    "mia/efficacy", "mia/svc", "mia/auc", "mia/tpr@1fpr", "mia/tpr@1fpr/low", "mia/tpr@1fpr/high", "streisand",
    "streisand/low", "streisand/high", "churn", "distance",
)  # fmt: skip


# A group with more figures is folded.
FEW = 12
HEAD = ("Stage", "Figure", "Value")
# What stages tell of themselves: a group of figures, or one of them as group/figure.
_FOUND = {
    "selected/epoch": "Epoch chosen by unseen samples (0: before the first step)",
    "selected/of": "Epochs to choose from",
    "selected/distance": "Distance to unseen samples there",
    "estimate/forget/acc": "Forgotten samples that the estimate gets right, %",
    "solver/products": "Products with the curvature",
    "adversarial/found": "Share of samples with an adversarial example",
    "adversarial/median epsilon": "Median distance of the examples",
    "kept/sign": "Sign of the step that was kept",
    "dampened": "Share of weights dampened",
    "weights_kept": "Share of weights not pruned",
    "share of new weights": "Share of weights drawn anew",
}


def attack(report: Report, rows: Sequence[Row]) -> Html:
    """What an attacker sees: rates, ROC on logarithmic axes, margins.

    Args:
        report: Of any kind.
        rows: The models.

    Returns:
        A section.
    """

    def one(row: Row) -> Html:
        lines = [
            [
                metric(entry.metric).label,
                number(entry.metric, entry.value),
                number(entry.metric, entry.reference),
                number(entry.metric, entry.level),
                number(entry.metric, entry.original),
            ]
            for entry in compare(report, row, ATTACK)
        ]
        drawings = []
        position = rows.index(row)
        margins, roc = row.details.get("margins"), row.details.get("roc")
        if margins and len(margins.get("bins", [])) > 1:
            others = "unseen samples, and the reference's, do" if margins.get("reference") else "unseen samples do"
            caption = f"Margins of the model. Forgotten samples should lie where {others}."
            drawings.append(figure(figures.margins(margins, f"margins{position}"), caption))
        if roc and len(roc["fpr"]) > 1:
            caption = (
                "Membership attack: forgotten against test samples, weighted to the same classes. On the dashed line it "
                "does no better than chance."
            )
            drawings.append(figure(figures.roc(roc, f"roc{position}"), caption))
        head = ["", "This model", "Retrained reference", "Two references differ by", before(report)]
        return raw(table(head, lines, dropped=True), grid(*drawings))

    return section("What an attacker sees", each([(heading(row), one(row)) for row in rows]))


def classes(rows: Sequence[Row]) -> Html:
    """Accuracy per class.

    Args:
        rows: The models.

    Returns:
        A section; empty without such details.
    """

    def one(row: Row) -> Html:
        found = row.details.get("per_class", [])
        if not found:
            return Html("")
        drawn = figures.most_different(found)
        caption = "Forgotten samples should be classified about as well as test samples of their class, not as retained ones."
        if len(drawn) < len(found):
            caption += f" The {len(drawn)} of {len(found)} classes where the two lie furthest apart."
        lines = [
            [
                name(entry["class"]),
                *(number("test/acc", value) for value in (entry["forget"], entry["retain"], entry["test"])),
            ]
            for entry in found
        ]
        full = table(["Class", "Forgotten", "Retained", "Test"], lines, caption="Accuracy in %", dropped=True)
        drawing = figure(figures.per_class(drawn, f"class{rows.index(row)}"), caption)
        return grid(drawing, full) if len(found) <= 20 else raw(drawing, fold(f"All {len(found)} classes", full))

    return section("Per class", each([(heading(row), one(row)) for row in rows]))


def layers(rows: Sequence[Row]) -> Html:
    """What changed in each layer: relative weight change, and the share of ones in each stage's mask.

    Args:
        rows: The models.

    Returns:
        A section; empty without such details.
    """

    def one(row: Row) -> Html:
        position = rows.index(row)
        drawings, tables = [], []
        changed = row.details.get("layers", {})
        if changed:
            drawing = figures.layer_bars(changed, f"layers{position}", "relative change of weights", share=False)
            drawings.append(figure(drawing, "How far each layer's weights moved from the original's."))
            lines = [[name(layer), number("churn", value)] for layer, value in changed.items()]
            tables.append(fold("Weight change of all layers", table(["Layer", "Relative change"], lines)))
        for index, stage in enumerate(row.stages):
            if stage.mask_on:
                label = "share of the mask that is on"
                drawing = figures.layer_bars(stage.mask_on, f"mask{position}-{index}", label, share=True)
                drawings.append(figure(drawing, f"Share of weights that {stage.name} selected, per layer."))
                lines = [[name(layer), number("churn", value)] for layer, value in stage.mask_on.items()]
                tables.append(fold(f"Mask of all layers, {stage.name}", table(["Layer", "On"], lines)))
        return raw(grid(*drawings), *tables)

    return section("What changed, per layer", each([(heading(row), one(row)) for row in rows]))


def found(rows: Sequence[Row]) -> Html:
    """What the stages tell of themselves, such as the epoch that was chosen; long groups (one figure a layer) are folded.

    Args:
        rows: The models.

    Returns:
        A section; empty where no stage tells anything.
    """

    def one(row: Row) -> Html:
        short, long = [], []
        for stage in row.stages:
            for group, values in stage.found.items():
                lines = [[name(stage.name), text(_found_label(group, key)), digits(value)] for key, value in values.items()]
                if len(lines) <= FEW:
                    short += lines
                else:
                    long.append(fold(f"{stage.name}: {len(lines)} figures", table(HEAD, lines, words=2)))
        return raw(table(HEAD, short, words=2), *long)

    return section("What the stages found", each([(heading(row), one(row)) for row in rows]))


def requests(rows: Sequence[Row]) -> Html:
    """What an exact method costs by the size of a request.

    Args:
        rows: The models.

    Returns:
        A section; empty without such a method.
    """

    def one(row: Row) -> Html:
        parts = []
        for i, stage in enumerate(row.stages):
            if stage.requests:
                bars = {f"{size} samples" if size != "1" else "1 sample": share for size, share in stage.requests.items()}
                drawing = figures.layer_bars(bars, f"requests{rows.index(row)}-{i}", "share of training everything", share=True)
                caption = "Expected work of one request of random samples, deleted together. Every further request costs again."
                parts.append(figure(drawing, caption))
                lines = [[name(size), number("cost/share", share)] for size, share in bars.items()]
                parts.append(table(["Request", "Expected share of training everything"], lines))
        return grid(*parts)

    return section("Cost by size of a request", each([(heading(row), one(row)) for row in rows]))


def stages(rows: Sequence[Row]) -> Html:
    """The time of each stage.

    Args:
        rows: The models.

    Returns:
        A section; empty without stages.
    """

    def one(row: Row) -> Html:
        if not row.stages:
            return Html("")
        lines = [
            [
                name(stage.name),
                seconds(stage.seconds),
                count(round(stage.work)),
                number("cost/share", stage.share),
            ]
            for stage in row.stages
        ]
        drawing = figures.stage_times(row.stages, f"stages{rows.index(row)}")
        head = ["Stage", "Wall time", "Image passes", "Share of retraining"]
        unknown = all(math.isnan(stage.share) for stage in row.stages)
        told = "For the share of retraining give --retrain_epochs N, the epochs of the original." * unknown
        times = grid(figure(drawing, "Wall time of each stage, preparation included."), table(head, lines))
        return raw(times, paragraph(told, css="quiet"))

    return section("Time per stage", each([(heading(row), one(row)) for row in rows]))


def _found_label(group: str, name: str) -> str:
    """Plain words where they are known, else the group's words or name and the figure's."""
    return _FOUND.get(f"{group}/{name}") or f"{_FOUND.get(group, group)}: {name}"
