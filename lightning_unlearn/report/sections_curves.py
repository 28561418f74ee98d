"""The section of a benchmark on how well scores tell wrong labels from right ones."""

from collections.abc import Sequence

from lightning_unlearn.report.canvas import COLORS, blank, clip, style, to_svg
from lightning_unlearn.report.detect_schema import Curves
from lightning_unlearn.report.labels import MISSING
from lightning_unlearn.report.leaderboard import Estimate, estimate
from lightning_unlearn.report.markup import Html, figure, grid, name, paragraph, section, table

__all__ = ["auroc_by_epoch", "curve_cells", "curves"]

_LINES = ("s1", "s2", "s3", "s4", "s5", "s6", "muted", "ink")


def _shown(found: Estimate) -> str:
    if not found.n:
        return MISSING
    return f"{found.mean:.3f}" + (f" ± {found.sd:.3f}" if found.n > 1 else "")


def curve_cells(found: Sequence[Curves]) -> tuple[list[str], list[list[str]]]:
    """One line per training and rule, means and deviations over originals.

    Args:
        found: Searches on originals.

    Returns:
        The head, and cells.
    """
    scores = list(dict.fromkeys(score for one in found for score in one.auroc))
    rows = []
    for setting, rule in dict.fromkeys((one.setting, one.rule) for one in found):
        same = [one for one in found if (one.setting, one.rule) == (setting, rule)]
        decided = [_shown(estimate(getattr(one, part) for one in same)) for part in ("precision", "recall", "f1")]
        areas = [_shown(estimate(one.auroc[score] for one in same if score in one.auroc)) for score in scores]
        rows.append([f"{setting}: {rule}" if setting else rule, str(len(same)), *areas, *decided])
    return ["Training and rule", "n", *scores, "Precision", "Recall", "F1"], rows


def auroc_by_epoch(found: Sequence[Curves], prefix: str) -> str:
    """How well the loss of each epoch of training tells wrong labels, one line per training.

    Args:
        found: Searches on originals, trained for as many epochs.
        prefix: Of ids.

    Returns:
        An SVG element.
    """
    settings = list(dict.fromkeys(one.setting for one in found))
    with style(prefix):
        drawing, axes = blank(300, left=58, top=34 + 18 * ((len(settings) - 1) // 3))
        for setting, color in zip(settings, _LINES, strict=False):
            lines = [one.by_epoch for one in found if one.setting == setting]
            means = [estimate(values).mean for values in zip(*lines, strict=True)]
            axes.plot(range(1, len(means) + 1), means, color=COLORS[color], label=clip(setting or "loss", 22))
        axes.axhline(0.5, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("epoch whose loss is the score")
        axes.set_ylabel("AUROC (0.5: chance)")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=1.4, columnspacing=1.2)
        return to_svg(drawing, prefix, "Area under the ROC curve of the loss against the epoch of training")


def curves(found: Sequence[Curves]) -> Html:
    """Scores against the truth, for each training; and the loss epoch by epoch.

    Args:
        found: Searches on originals; without any there is no section.

    Returns:
        A section; empty without.
    """
    if not found:
        return Html("")
    head, rows = curve_cells(found)
    lengths = sorted({len(one.by_epoch) for one in found if one.by_epoch})
    drawings = [
        figure(
            auroc_by_epoch([one for one in found if len(one.by_epoch) == length], f"epochs{length}"),
            f"{length} epochs. Mean over originals; wrong labels are learnt later, so an early epoch may tell them better.",
        )
        for length in lengths
    ]
    note = (
        "Area under the ROC curve of every score, wrong against right labels, mean ± standard deviation over originals; "
        "precision, recall and F1 are those of the rule, whose suspects are then forgotten. A dash: the truth is not known."
    )
    cells = [[name(row[0]), *row[1:]] for row in rows]
    return section("Finding wrong labels", table(head, cells), grid(*drawings), paragraph(note, css="quiet"))
