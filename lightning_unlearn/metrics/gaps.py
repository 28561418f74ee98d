"""How far the accuracies and the attack of an unlearned model are from those of one retrained reference."""

from dataclasses import asdict, dataclass
from statistics import fmean

from lightning_unlearn.attacks.svc import mia_svc
from lightning_unlearn.attacks.threshold import mia_efficacy
from lightning_unlearn.metrics.accuracy import split_test
from lightning_unlearn.outputs import Outputs

__all__ = ["Scores", "average_gap", "scores", "signed_gaps", "tug_of_war", "tug_of_war_mia"]


@dataclass(frozen=True)
class Scores:
    """The four figures that gaps are made of, in percent points, 0 ... 100.

    Attributes:
        ua: 100 - accuracy on D_f.
        ra: Accuracy on D_r.
        ta: Accuracy on the test set; on its remaining classes where whole classes are forgotten.
        mia: Share of D_f that the attack calls non-members.
    """

    ua: float
    ra: float
    ta: float
    mia: float


def scores(outputs: Outputs, *, seed: int = 0, svc: bool = False) -> Scores:
    """The four figures of one model.

    Args:
        outputs: Of the model.
        seed: Seed of the draw of members; the same for all models that are compared.
        svc: Attack with the published SVC on confidences (slow) instead of the best threshold.

    Returns:
        The scores.
    """
    forget, retain = outputs.forget, outputs.retain
    test, _ = split_test(outputs)
    # The best threshold is the same on margins as on confidences, which would tie at 1; the SVC is published
    # on the latter.
    f, r, t = (part.confidence if svc else part.margins for part in (forget, retain, test))
    attack = mia_svc if svc else mia_efficacy
    mia = attack(f, r, t, retain.targets, seed=seed, retain_index=retain.index)
    return Scores(100 * (1 - forget.accuracy), 100 * retain.accuracy, 100 * test.accuracy, 100 * mia)


def signed_gaps(unlearned: Scores, reference: Scores) -> dict[str, float]:
    """Unlearned minus reference.

    Args:
        unlearned: Scores of the unlearned model.
        reference: Scores of one reference.

    Returns:
        `ua`, `ra`, `ta`, `mia` in points, each in -100 ... 100.
    """
    r = asdict(reference)
    return {name: value - r[name] for name, value in asdict(unlearned).items()}


def average_gap(unlearned: Scores, reference: Scores) -> float:
    """Mean of the absolute differences of UA, RA, TA and MIA-efficacy to one reference.

    With several references take `mean_over_references` of it. The gap to the mean of the references is
    smaller, and reads 0 for a model that is far from each of them.

    Args:
        unlearned: Scores of the unlearned model.
        reference: Scores of one reference.

    Returns:
        Points, 0 ... 100; the aim is the value between two references.
    """
    return fmean(abs(gap) for gap in signed_gaps(unlearned, reference).values())


def tug_of_war(unlearned: Scores, reference: Scores) -> float:
    """ToW: product over forget, retain and test of (1 - |difference of accuracies|).

    Source: Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024.

    Args:
        unlearned: Scores of the unlearned model.
        reference: Scores of one reference.

    Returns:
        0 ... 1; 1 is the aim.
    """
    gaps = signed_gaps(unlearned, reference)
    return _product(gaps["ua"], gaps["ra"], gaps["ta"])


def tug_of_war_mia(unlearned: Scores, reference: Scores) -> float:
    """ToW-MIA: ToW with MIA-efficacy in place of the forget accuracy.

    Args:
        unlearned: Scores of the unlearned model.
        reference: Scores of one reference.

    Returns:
        0 ... 1; 1 is the aim.
    """
    gaps = signed_gaps(unlearned, reference)
    return _product(gaps["mia"], gaps["ra"], gaps["ta"])


def _product(*gaps: float) -> float:
    value = 1.0
    for gap in gaps:
        value *= 1 - abs(gap) / 100
    return value
