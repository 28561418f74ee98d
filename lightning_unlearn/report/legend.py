"""What the short names of columns stand for."""

from collections.abc import Iterable

from lightning_unlearn.report.labels import metric
from lightning_unlearn.report.markup import Html, fold, table

__all__ = ["UNCLEAR", "legend", "legend_lines"]

# Names that do not speak for themselves, in the order of the terminal's lines.
UNCLEAR = ("gap/avg", "attack/success", "mia/efficacy", "mia/auc", "mia/tpr@1fpr", "forget_unseen/auc", "js/forget", "js/test",
           "relearn/acc", "relearn/gap", "relearn/time", "streisand", "churn", "tow", "cost/share")  # fmt: skip


def legend(keys: Iterable[str], goal: str = "") -> Html:
    """Every short name beside what it stands for.

    Args:
        keys: The metrics whose short names are shown; a repeated one counts once.
        goal: What unlearning is for.

    Returns:
        A folded table; empty without metrics.
    """
    found = [metric(key, goal) for key in dict.fromkeys(keys)]
    rows = [[of.short, of.label] for of in found]
    return fold("What the short names stand for", table(["Short name", "What it is"], rows, words=2)) if rows else Html("")


def legend_lines(shown: Iterable[str], goal: str = "") -> list[str]:
    """The short names of a terminal's table that do not speak for themselves.

    Args:
        shown: Short names in the table; other words there are passed over.
        goal: What unlearning is for.

    Returns:
        A line each.
    """
    words = set(shown)
    names = [metric(key, goal) for key in ("forget/acc",) * (goal == "repair") + UNCLEAR]
    return [f"{name.short}: {name.label}" for name in names if name.short in words]
