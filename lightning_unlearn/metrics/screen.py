"""The screen tier: what one unlearned model, and one to three references, can say in seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import torch

from lightning_unlearn.attacks.low_fpr import clopper_pearson
from lightning_unlearn.attacks.threshold import auc, tpr_at_fpr
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.metrics.accuracy import forgotten_classes, split_test
from lightning_unlearn.metrics.attack_success import attack_success
from lightning_unlearn.metrics.change import churn
from lightning_unlearn.metrics.comparison import Scored, compare, levels, mean_rows, scored
from lightning_unlearn.metrics.details import Json, class_rows, margin_histograms, roc_points
from lightning_unlearn.metrics.forget_unseen import (
    Estimate,
    class_weights,
    forget_against_unseen,
    rf_jsd,
    shared_classes,
    streisand,
)
from lightning_unlearn.metrics.gaps import signed_gaps
from lightning_unlearn.metrics.pairing import check_same_samples, check_same_split, mean_over_references
from lightning_unlearn.metrics.relearn import relearn_gap
from lightning_unlearn.outputs import Outputs, PartOutputs
from lightning_unlearn.thresholds import FEWEST_FORGOTTEN
from lightning_unlearn.words import plural, were

__all__ = ["NO_REFERENCE", "Goal", "Screen", "levels", "screen"]

Goal = Literal["untrain", "remove-class", "repair"]

# Said of models that are no retrained ones themselves.
NO_REFERENCE = "No reference: how close this model is to retraining cannot be said."

# Below this the number of forgotten samples carries no claim; the screen then states the standard error.
ENOUGH_FORGOTTEN = 400
# One false positive at 1 % needs 100 non-members; five make the rate worth quoting without a remark.
FEWEST_NON_MEMBERS, ENOUGH_NON_MEMBERS = 100, 500


@dataclass(frozen=True)
class Screen:
    """Result of `screen`.

    Attributes:
        metrics: By name; what cannot be computed is absent. Accuracies, rates and their gaps and churn in points, 0 ... 100
            (differences -100 ... 100); divergences in nats; areas, tug-of-war and the Streisand check 0 ... 1 (-1 ... 1).
        details: For figures and tables, in plain JSON types: `histograms`, `roc`, `classes`, `gaps`.
        notes: What a reader must know beside the figures, one sentence each.
    """

    metrics: dict[str, float]
    details: dict[str, Json]
    notes: list[str]


def screen(
    unlearned: Outputs,
    references: Sequence[Outputs],
    original: Outputs | None = None,
    *,
    goal: Goal = "untrain",
    relearned: Outputs | None = None,
    references_relearned: Sequence[Outputs] = (),
    seed: int = 0,
    svc: bool = False,
    triggered: tuple[PartOutputs, int] | None = None,
) -> Screen:
    """Every metric of the screen tier that the given outputs allow.

    Metrics against references are means over references of the metric against one reference. Where whole
    classes are forgotten, `test` means the test samples of the remaining classes, in every metric.

    Args:
        unlearned: Of the unlearned model.
        references: Of models retrained without D_f, on the same split; may be empty.
        original: Of the model before unlearning.
        goal: What unlearning was for; `repair` leaves out what compares confidence in labels of D_f.
        relearned: Of the unlearned model after fine-tuning on D_r alone.
        references_relearned: Of references after the same fine-tuning.
        seed: Seed of the draw of members.
        svc: Whether to run the published SVC attack too (slow, and for each reference again).
        triggered: Of the unlearned model on test images with a backdoor's trigger, and the class that it is for.

    Returns:
        Metrics, details and notes.

    Raises:
        ConfigError: The goal is unknown.
    """
    if goal not in get_args(Goal):
        raise ConfigError(f"Goal {goal!r}; needed: one of {', '.join(get_args(Goal))}.")
    for other in (*references, *([] if original is None else [original])):
        check_same_split(unlearned, other)
    metrics: dict[str, float] = {}
    details: dict[str, Json] = {}
    notes: list[str] = []

    own = scored(unlearned, seed=seed, svc=svc)
    _accuracies(own, goal, metrics, notes)
    if goal == "repair":
        notes.append(
            "Goal repair: labels of forgotten samples are taken to be wrong, so confidence in them is not compared with "
            "test or unseen samples; the target is clean test accuracy."
        )
    else:
        _as_members(unlearned, metrics, details, notes)
        _against_unseen(unlearned, original, metrics, notes)
    if references:
        models = [scored(reference, seed=seed, svc=svc) for reference in references]
        metrics.update(mean_rows([compare(own, reference) for reference in models]))
        details["gaps"] = _signed(own, models)
        if original is not None and len(references) > 1:
            _void(scored(original, seed=seed), models, notes)
    elif goal != "repair":
        notes.append(NO_REFERENCE)
    if len(references) == 1:
        notes.append("One reference: the level between references, which gaps are read against, is not known.")
    if relearned is not None:
        check_same_samples(unlearned.forget, relearned.forget, "forget")
        metrics["relearn/acc"] = 100 * relearned.forget.accuracy
        if references_relearned:
            metrics["relearn/gap"] = mean_over_references(relearn_gap, relearned, references_relearned)
    if triggered is not None:
        metrics["attack/success"] = attack_success(*triggered)
    if original is not None:
        metrics["churn"] = 100 * churn(unlearned, original)
        if metrics["churn"] == 0:
            notes.append("No-op: no prediction differs from the original model's.")
    details["histograms"] = _histograms(unlearned, references)
    details["classes"] = class_rows(unlearned)
    return Screen(metrics, details, notes)


def _accuracies(own: Scored, goal: Goal, metrics: dict[str, float], notes: list[str]) -> None:
    unlearned = own.outputs
    metrics["forget/acc"] = 100 * unlearned.forget.accuracy
    metrics["retain/acc"] = own.scores.ra
    metrics["test/acc"] = own.scores.ta
    _, forgotten_test = split_test(unlearned)
    if forgotten_test is not None:
        metrics["test_forgotten/acc"] = 100 * forgotten_test.accuracy
    if unlearned.unseen is not None:
        metrics["unseen/acc"] = 100 * unlearned.unseen.accuracy
    metrics["mia/efficacy"] = own.scores.mia
    if own.svc is not None:
        metrics["mia/svc"] = own.svc.mia
    if goal == "remove-class" and len(forgotten_classes(unlearned)) == 0:
        notes.append(
            "Goal remove-class: every class of a forgotten sample still has retained samples, so no class was removed."
        )
    n = len(unlearned.forget)
    if n < ENOUGH_FORGOTTEN and goal != "repair":
        # At 0 or n errors the plain formula says 0; half an error is what can still be told from none.
        share = min(max(unlearned.forget.accuracy, 0.5 / n), 1 - 0.5 / n)
        error = 100 * math.sqrt(share * (1 - share) / n)
        notes.append(f"{plural(n, 'forgotten sample')}: the standard error of forget accuracy is {error:.1f} points.")


def _as_members(unlearned: Outputs, metrics: dict[str, float], details: dict[str, Json], notes: list[str]) -> None:
    """D_f as members against test samples of its classes, weighted so that their mix is that of D_f."""
    known, weights = class_weights(unlearned.forget, unlearned.test)
    forget, counted = unlearned.forget.margins[known], weights > 0
    outsiders, weights = unlearned.test.margins[counted], weights[counted]
    if left_out := int((~known).sum()):
        notes.append(f"{plural(left_out, 'forgotten sample')} of classes without test samples {were(left_out)} not attacked.")
    if len(forget) == 0:
        return
    details["roc"] = roc_points(forget, outsiders, weights=weights)
    metrics["mia/auc"] = auc(forget, outsiders, weights)
    # Of equal weight, as many would be as sure.
    worth = math.floor(float(1 / weights.square().sum()) + 1e-6)
    those = plural(len(outsiders), "non-member") + (f" (worth {worth} of equal weight)" if worth < len(outsiders) else "")
    if worth < FEWEST_NON_MEMBERS:
        notes.append(f"{those}: a false-positive rate of 1 % cannot be measured.")
        return
    point = tpr_at_fpr(forget, outsiders, 0.01, weights)
    metrics["mia/tpr@1fpr"] = 100 * point.tpr
    low, high = clopper_pearson(round(point.tpr * len(forget)), len(forget))
    metrics["mia/tpr@1fpr/low"], metrics["mia/tpr@1fpr/high"] = 100 * low, 100 * high
    if worth < ENOUGH_NON_MEMBERS:
        allowed = int((outsiders >= point.threshold).sum())
        notes.append(f"TPR @ 1 % rests on {plural(allowed, 'false positive')} among {those}.")


def _against_unseen(unlearned: Outputs, original: Outputs | None, metrics: dict[str, float], notes: list[str]) -> None:
    forget, unseen = unlearned.forget, unlearned.unseen
    if unseen is None:
        notes.append("No unseen samples: forgotten samples are not compared with samples never trained on.")
        return
    shared = torch.tensor(shared_classes(forget, unseen), dtype=torch.int64)
    left_out = int((~torch.isin(forget.targets, shared)).sum())
    if left_out:
        notes.append(f"{plural(left_out, 'forgotten sample')} of classes without unseen samples {were(left_out)} not compared.")
    rank, difference = forget_against_unseen(forget, unseen), streisand(forget, unseen)
    _put("forget_unseen/auc", rank, metrics)
    _put("streisand", difference, metrics)
    told = difference if len(forget) - left_out >= FEWEST_FORGOTTEN else None
    if told is not None and told.high < 0:
        notes.append(
            "Forgotten samples are less certain than unseen ones of their classes: it shows that they were forgotten "
            "(Streisand effect)."
        )
    if told is not None and told.low > 0:
        notes.append("Forgotten samples are more certain than unseen ones of their classes: as after training.")
    if original is not None and original.unseen is not None:
        distance = rf_jsd(forget, original.unseen)
        if distance is not None:
            metrics["forget_unseen/rf_jsd"] = distance


def _put(name: str, estimate: Estimate | None, metrics: dict[str, float]) -> None:
    if estimate is None:
        return
    metrics[name] = estimate.value
    if math.isfinite(estimate.low):
        metrics[f"{name}/low"], metrics[f"{name}/high"] = estimate.low, estimate.high


def _signed(own: Scored, references: Sequence[Scored]) -> dict[str, Json]:
    """Signed gaps.

    Returns:
        Their means by name, and those to each reference.
    """
    each = [signed_gaps(own.scores, reference.scores) for reference in references]
    return {**mean_rows(each), "per_reference": [{**gaps} for gaps in each]}


def _void(original: Scored, references: Sequence[Scored], notes: list[str]) -> None:
    """A metric that does not tell the original from a reference says nothing about unlearning either."""
    gap = mean_rows([compare(original, reference) for reference in references])
    level = mean_rows([compare(a, b) for a, b in permutations(references, 2)])
    for name, label in (("gap/avg", "the average gap"), ("js/forget", "JS on forgotten samples")):
        if gap[name] <= level[name]:
            notes.append(
                f"Void for {label}: the original itself reads {gap[name]:.3g}, two references read "
                f"{level[name]:.3g}; here this metric cannot show that anything was forgotten."
            )


def _histograms(unlearned: Outputs, references: Sequence[Outputs]) -> dict[str, Json]:
    margins = {name: part.margins for name, part in unlearned.parts().items() if name != "retain"}
    for i, reference in enumerate(references):
        margins[f"reference{i}_forget"] = reference.forget.margins
    return margin_histograms(margins)
