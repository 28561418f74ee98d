"""Every metric of one model against one reference, and what the same metrics read between two references."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean

from lightning_unlearn.metrics.accuracy import split_test
from lightning_unlearn.metrics.change import churn
from lightning_unlearn.metrics.divergence import js_to_reference, kl_to_reference
from lightning_unlearn.metrics.gaps import (
    Scores,
    average_gap,
    scores,
    signed_gaps,
    tug_of_war,
    tug_of_war_mia,
)
from lightning_unlearn.metrics.pairing import check_same_split, mean_over_references, reference_level
from lightning_unlearn.metrics.relearn import relearn_gap
from lightning_unlearn.outputs import Outputs

__all__ = ["Scored", "compare", "levels", "mean_rows", "scored"]


@dataclass(frozen=True, eq=False)
class Scored:
    """A model with the figures that are computed once and compared often.

    Attributes:
        outputs: Of the model.
        scores: With the best-threshold attack.
        svc: With the published SVC attack, where that was asked for.
    """

    outputs: Outputs
    scores: Scores
    svc: Scores | None


def scored(outputs: Outputs, *, seed: int = 0, svc: bool = False) -> Scored:
    """Score a model.

    Args:
        outputs: Of the model.
        seed: Seed of the draw of members; the same for all models that are compared.
        svc: Whether to run the published SVC attack too (slow).

    Returns:
        The model with its scores.
    """
    return Scored(outputs, scores(outputs, seed=seed), scores(outputs, seed=seed, svc=True) if svc else None)


def compare(model: Scored, reference: Scored) -> dict[str, float]:
    """Every metric that needs one reference and no further run.

    Args:
        model: The unlearned model.
        reference: One reference, on the same split.

    Returns:
        `gap/avg`, `gap/ua`, `gap/ra`, `gap/ta`, `gap/mia` (absolute, points), `tow`, `tow_mia` (0 ... 1),
        `js/forget`, `js/test`, `kl/forget`, `kl/test` (nats), and `gap_svc/avg` where both were attacked with
        the SVC.
    """
    a, b = model.scores, reference.scores
    found = {"gap/avg": average_gap(a, b)}
    found.update({f"gap/{name}": abs(gap) for name, gap in signed_gaps(a, b).items()})
    found["tow"], found["tow_mia"] = tug_of_war(a, b), tug_of_war_mia(a, b)
    if model.svc is not None and reference.svc is not None:
        found["gap_svc/avg"] = average_gap(model.svc, reference.svc)
    pairs = {
        "forget": (model.outputs.forget, reference.outputs.forget),
        "test": (split_test(model.outputs)[0], split_test(reference.outputs)[0]),
    }
    for name, (ours, theirs) in pairs.items():
        found[f"js/{name}"] = float(js_to_reference(ours, theirs).mean())
        found[f"kl/{name}"] = float(kl_to_reference(ours, theirs).mean())
    return found


def mean_rows(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over comparisons.

    Args:
        rows: At least one; all with the same names.

    Returns:
        The means, by name.
    """
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def levels(
    references: Sequence[Outputs],
    references_relearned: Sequence[Outputs] = (),
    *,
    seed: int = 0,
    svc: bool = False,
) -> dict[str, float]:
    """What each metric against a reference reads between two references: the mean over their pairs.

    The gap of relearning has a sign, and gaps to several references cancel: it is the distance to their mean. So its level is
    the distance, without the sign, of one reference to the mean of the others, on average over references.

    Args:
        references: Of models retrained without D_f, on the same split.
        references_relearned: Of references after fine-tuning on D_r alone.
        seed: Seed of the draw of members: that of `screen`.
        svc: Whether to give the level of `gap_svc/avg` (slow).

    Returns:
        Levels by metric name: those of `compare`, `churn` (points) and `relearn/gap` (points); absent where
        there are fewer than two models.
    """
    found: dict[str, float] = {}
    if len(references) > 1:
        for other in references[1:]:
            check_same_split(references[0], other)
        models = [scored(reference, seed=seed, svc=svc) for reference in references]
        # Both orders of a pair, as KL is not symmetric; the other metrics do not mind.
        found = mean_rows([compare(a, b) for a, b in permutations(models, 2)])
        found["churn"] = 100 * reference_level(churn, references)
    if len(references_relearned) > 1:
        others = [[b for b in references_relearned if b is not a] for a in references_relearned]
        gaps = [mean_over_references(relearn_gap, a, rest) for a, rest in zip(references_relearned, others, strict=True)]
        found["relearn/gap"] = fmean(map(abs, gaps))
    return found
