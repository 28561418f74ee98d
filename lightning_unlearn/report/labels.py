"""Names and numbers as a reader sees them."""

import math
import unicodedata
from typing import Literal, NamedTuple

__all__ = [
    "EXACT",
    "GOALS",
    "MISSING",
    "SCREENING",
    "TIERS",
    "Metric",
    "count",
    "metric",
    "number",
    "plain",
    "seconds",
    "with_spread",
]

MISSING = "\u2014"
SCREENING = "screening: not evidence of forgetting"
EXACT = "exact by construction: the model was trained without the forgotten samples"
TIERS = {
    "screen": SCREENING,
    "audit": "audit: per-sample attacks over many models",
    "benchmark": "benchmark: per-sample attacks and distances over many models",
    "detect": "suspected labels: to be looked at, not proven wrong",
}
GOALS = {
    "untrain": "undo the influence of the samples: the aim is the value of a retrained model, not zero",
    "remove-class": "remove a class: the concept must go",
    "repair": "repair wrong labels: the aim is clean test accuracy",
}


class Metric(NamedTuple):
    """How a metric is written.

    Attributes:
        label: In a table of its own.
        short: In a column head.
        unit: `points` are shown as they are, `share` 0 ... 1 as per cent.
        decimals: Shown.
    """

    label: str
    short: str
    unit: Literal["points", "share", "fraction", "seconds", "megabytes", "number"]
    decimals: int


METRICS = {
    "gap/avg": Metric("Average gap to retraining", "Gap", "points", 2),
    "gap/ua": Metric("Gap in accuracy on forgotten samples", "Gap UA", "points", 2),
    "gap/ra": Metric("Gap in accuracy on retained samples", "Gap RA", "points", 2),
    "gap/ta": Metric("Gap in test accuracy", "Gap TA", "points", 2),
    "gap/mia": Metric("Gap in what the attack calls non-members", "Gap MIA", "points", 2),
    "gap_svc/avg": Metric("Average gap with the SVC attack", "Gap (SVC)", "points", 2),
    "forget/acc": Metric("Accuracy on forgotten samples", "Forget acc", "points", 1),
    "retain/acc": Metric("Accuracy on retained samples", "Retain acc", "points", 1),
    "test/acc": Metric("Test accuracy", "Test acc", "points", 1),
    "test_forgotten/acc": Metric("Test accuracy on forgotten classes", "Test forgotten", "points", 1),
    "unseen/acc": Metric("Accuracy on unseen samples", "Unseen acc", "points", 1),
    "attack/success": Metric("Test images with the trigger that are taken for its target, %", "Attack succ", "points", 1),
    "mia/efficacy": Metric("Forgotten samples that an attack calls non-members, %", "MIA efficacy", "points", 1),
    "mia/auc": Metric("Attack against test samples, weighted to the same classes: AUC", "Attack AUC", "fraction", 3),
    "mia/svc": Metric("Forgotten samples that the SVC attack calls non-members, %", "MIA SVC", "points", 1),
    "mia/tpr@1fpr": Metric("Attack against test samples: true positives at 1 % false positives, %", "TPR @ 1 %", "points", 1),
    "mia/tpr@1fpr/low": Metric("True positives: lower end, %", "TPR low", "points", 1),
    "mia/tpr@1fpr/high": Metric("True positives: upper end, %", "TPR high", "points", 1),
    "js/forget": Metric("Jensen-Shannon divergence, forgotten samples", "JS forget", "fraction", 4),
    "js/test": Metric("Jensen-Shannon divergence, test samples", "JS test", "fraction", 4),
    "kl/forget": Metric("KL divergence, forgotten samples", "KL forget", "fraction", 4),
    "kl/test": Metric("KL divergence, test samples", "KL test", "fraction", 4),
    "relearn/acc": Metric("Forget accuracy after retain-only fine-tuning", "Relearned acc", "points", 1),
    "relearn/gap": Metric(
        "Forget accuracy after retain-only fine-tuning, minus the references' mean", "Relearn gap", "points", 1
    ),
    "relearn/time": Metric("Steps on forgotten samples until they are known again", "Relearn time", "number", 0),
    "forget_unseen/auc": Metric("Forgotten against unseen: rank AUC", "Unseen AUC", "fraction", 3),
    "forget_unseen/auc/low": Metric("Forgotten against unseen: lower end", "AUC low", "fraction", 3),
    "forget_unseen/auc/high": Metric("Forgotten against unseen: upper end", "AUC high", "fraction", 3),
    "forget_unseen/rf_jsd": Metric("Forgotten against the original's unseen (RF-JSD)", "RF-JSD", "fraction", 4),
    "streisand": Metric("Forgotten minus unseen confidence, below 0 where forgetting shows", "Streisand", "fraction", 3),
    "streisand/low": Metric("Streisand check: lower end", "Streisand low", "fraction", 3),
    "streisand/high": Metric("Streisand check: upper end", "Streisand high", "fraction", 3),
    "churn": Metric("Predictions that changed, %", "Churn", "points", 1),
    "distance": Metric("Relative weight distance to the original", "Distance", "fraction", 3),
    "tow": Metric("Tug of war (ToW): 1 where all three accuracies are the reference's", "ToW", "fraction", 3),
    "tow_mia": Metric("Tug of war with the attack (ToW-MIA)", "ToW-MIA", "fraction", 3),
    "zrf": Metric("Zero retrain forgetting (ZRF)", "ZRF", "fraction", 3),
    "rank_auc": Metric("Per-sample rank AUC", "Rank AUC", "fraction", 3),
    "rank_auc/p": Metric("Permutation test over models, p", "p", "fraction", 4),
    "rank_auc/p_holm": Metric("Permutation test over models, of strata after Holm: p", "p (Holm)", "fraction", 4),
    "rank_auc/null": Metric("Rank AUC of permuted models", "Rank AUC, permuted", "fraction", 3),
    "ulira": Metric(
        "U-LiRA against models that forgot other samples; zero, ceiling: unlearned nothing, %", "U-LiRA", "points", 1
    ),
    "ulira/references": Metric("U-LiRA against references, %", "U-LiRA, refs", "points", 1),
    "rmia1/auc": Metric("RMIA with one reference, AUC", "RMIA 1", "fraction", 3),
    "rmia1/tpr@1fpr": Metric("RMIA with one reference, true positives at 1 % false ones, %", "TPR @ 1 %, 1 ref", "points", 1),
    "rmia1/tpr@0.1fpr": Metric("RMIA with one reference, at 0.1 %", "TPR @ 0.1 %, 1 ref", "points", 1),
    "rmia/auc": Metric("RMIA with up to four references, AUC", "RMIA", "fraction", 3),
    "rmia/tpr@1fpr": Metric("RMIA with up to four references, true positives at 1 % false ones, %", "TPR @ 1 %", "points", 1),
    "rmia/tpr@0.1fpr": Metric("RMIA with up to four references, at 0.1 %", "TPR @ 0.1 %", "points", 1),
    "klom/median": Metric("KLoM, median", "KLoM", "fraction", 2),
    "klom/median/null": Metric("KLoM of permuted models, median", "KLoM, permuted", "fraction", 2),
    "klom/p95": Metric("KLoM, 95th percentile", "KLoM p95", "fraction", 2),
    "klom/p95/null": Metric("KLoM of permuted models, 95th percentile", "KLoM p95, permuted", "fraction", 2),
    "klom/retain_p95": Metric("KLoM on retained samples, 95th percentile", "KLoM p95, retain", "fraction", 2),
    "klom/test_p95": Metric("KLoM on test samples, 95th percentile", "KLoM p95, test", "fraction", 2),
    "f": Metric("Forgetting score F", "F", "fraction", 3),
    "f/null": Metric("Forgetting score F of permuted models", "F, permuted", "fraction", 3),
    "f/of_null": Metric("F as a share of that of permuted models", "F/F permuted", "fraction", 2),
    "f/final": Metric("F times the ratios of retain and test accuracy", "F final", "fraction", 3),
    "cost/share": Metric("Work, as a share of retraining", "Cost", "share", 1),
    "time/unlearn_s": Metric("Time of all stages", "Time", "seconds", 1),
    "memory/peak_mb": Metric("Peak memory", "Memory", "megabytes", 0),
}


def digits(value: float) -> str:
    """Write a number of unknown kind in four digits.

    Args:
        value: Not finite gives a dash.

    Returns:
        For instance "0.125", "12" or "3.1e-05", with a true minus sign.
    """
    return f"{value:.4g}".replace("-", "\u2212") if math.isfinite(value) else MISSING


# Labels of forgotten samples are suspected to be wrong where the goal is to repair: to agree with them less is the aim.
OF_REPAIR = {
    "forget/acc": Metric("Agreement with the given, suspected labels, %", "Given labels", "points", 1),
    "relearn/acc": Metric(
        "Agreement with the given labels after fine-tuning on retained samples, %", "Given, relearned", "points", 1
    ),
    "relearn/gap": Metric(
        "Agreement with the given labels after retain-only fine-tuning, minus the references' mean", "Relearn gap", "points", 1
    ),
}


def metric(name: str, goal: str = "") -> Metric:
    """How a metric is written.

    Args:
        name: The metric.
        goal: What unlearning is for.

    Returns:
        Its label and format; an unknown one keeps its name, its unit is guessed from that.
    """
    if goal == "repair" and name in OF_REPAIR:
        return OF_REPAIR[name]
    if name in METRICS:
        return METRICS[name]
    first, _, last = name.partition("/")
    if last == "acc" or first in ("gap", "relearn"):
        return Metric(name, name, "points", 1)
    if first == "time":
        return Metric(name, name, "seconds", 1)
    if first == "memory":
        return Metric(name, name, "megabytes", 0)
    return Metric(name, name, "number", 3)


def _scaled(name: str, value: float) -> tuple[float, int, str]:
    kind = metric(name)
    scale, unit = {"share": (100.0, " %"), "seconds": (1.0, " s"), "megabytes": (1.0, " MB")}.get(kind.unit, (1.0, ""))
    decimals = kind.decimals
    # A method that costs 0.03 % of retraining must not read "0.0 %"; one that takes an hour needs no tenths.
    if kind.unit == "share" and 0 < abs(value * scale) < 1:
        decimals = max(decimals, 2)
    if kind.unit == "seconds":
        decimals = 2 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return scale, decimals, unit


def number(name: str, value: float | None, unit: bool = True, sign: bool = False) -> str:
    """Write a metric's value.

    Args:
        name: The metric.
        value: None or non-finite give a dash.
        unit: Whether to append what is not plain from the label.
        sign: Whether to write a plus.

    Returns:
        For instance "93.1", "4.2 %", "+0.3".
    """
    if value is None or not math.isfinite(value):
        return MISSING
    scale, decimals, symbol = _scaled(name, value)
    text = f"{value * scale:{'+' if sign else ''},.{decimals}f}"
    if not any(digit in "123456789" for digit in text):
        text = text.lstrip("+-")  # no "-0.0"
    return text.replace("-", "\u2212").replace(",", "\u202f") + (symbol if unit else "")


def with_spread(name: str, mean: float, sd: float, unit: bool = True) -> str:
    """Write a mean and its standard deviation.

    Args:
        name: The metric.
        mean: Not finite gives a dash.
        sd: Not finite is left out.
        unit: Whether to append what is not plain from the label.

    Returns:
        For instance "12.3 ± 0.4".
    """
    if not math.isfinite(mean):
        return MISSING
    symbol = _scaled(name, mean)[2] if unit else ""
    if not math.isfinite(sd):
        return number(name, mean, unit)
    scale, decimals, _ = _scaled(name, mean)
    spread = f"{sd * scale:,.{decimals}f}".replace(",", "\u202f")
    return f"{number(name, mean, unit=False)} ± {spread}{symbol}"


def seconds(value: float) -> str:
    """Write a duration.

    Args:
        value: Seconds; not finite gives a dash.

    Returns:
        "0.84 s", "42.0 s", "12 min 3 s" or "3 h 20 min".
    """
    if not math.isfinite(value):
        return MISSING
    if value < 120:
        return f"{value:.{2 if value < 1 else 1}f} s"
    whole = round(value)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: int) -> str:
    """Write a whole number, its thousands apart.

    Args:
        value: The number.

    Returns:
        For instance "50 000", with a narrow space that does not break.
    """
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float) -> str:
    """Write a share for an axis.

    Args:
        value: 0 ... 1.

    Returns:
        Three digits at most: "100 %", "0.1 %".
    """
    return f"{value * 100:.3g} %"


def plain(text: str) -> str:
    """Make text from outside one harmless line.

    Line ends, control characters, marks that turn the direction of writing, and lone surrogates become
    escapes, so that a name can neither leave its cell nor reorder what stands around it. Right-to-left
    letters and the joiners that emoji and Persian need stay.

    Args:
        text: Any text.

    Returns:
        The same on one line, without characters that are not seen.
    """
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or character in "\u200c\u200d":
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
