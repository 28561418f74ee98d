"""What `EstimateUnseen` and `ImitateUnseen` refuse before anything runs."""

import math
from collections.abc import Mapping, Sequence

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.imitation.compared import BankEstimator
from lightning_unlearn.imitation.estimators import AnswerEstimator, Estimator

__all__ = ["check_calibration", "check_estimators", "check_samples", "check_teaching"]


def check_estimators(
    estimators: Sequence[Estimator], weights: Sequence[float] | None, class_estimators: Sequence[Estimator] | None
) -> None:
    """Refuse estimators and weights that do not fit.

    Args:
        estimators: What guesses.
        weights: One for each; None: they are chosen later.
        class_estimators: What guesses for samples of classes of which none is retained; None: the network's own answer.

    Raises:
        ChainError: One is no estimator, or there is none; there are more or fewer weights, one is below 0, or none above it;
            or what guesses for whole classes is nothing, or a surrogate.
    """
    for estimator in (*estimators, *(class_estimators or ())):
        if not isinstance(estimator, AnswerEstimator | BankEstimator):
            raise ChainError(
                f"EstimateUnseen: {type(estimator).__name__} is no estimator; needed: a subclass of AnswerEstimator or of "
                "BankEstimator."
            )
    fits = weights is None or (len(weights) == len(estimators) and all(0 <= w < math.inf for w in weights) and sum(weights) > 0)
    if not estimators or not fits:
        given = None if weights is None else list(weights)
        raise ChainError(
            f"EstimateUnseen: {len(estimators)} estimators and weights {given}; needed: at least one estimator, and one "
            "finite weight of 0 or more for each, not all 0, or none at all."
        )
    if class_estimators is not None and (not class_estimators or any(e.asks_surrogate for e in class_estimators)):
        raise ChainError(
            f"EstimateUnseen: class_estimators is {list(class_estimators)}; needed: at least one, and not Surrogate, which "
            "is not trained where whole classes alone are forgotten; or null for OwnAnswer."
        )


def check_samples(bank_samples: int, class_bank_samples: int, unseen_samples: int, rank_samples: int | None) -> None:
    """Refuse too few samples to guess by.

    Args:
        bank_samples: Retained samples among which a sample is compared, itself left out.
        class_bank_samples: The same for samples of classes that go as a whole.
        unseen_samples: Unseen samples on which a mixture is chosen.
        rank_samples: Samples of the bank among which others are ranked; None: all.

    Raises:
        ChainError: A bank has fewer than two samples, or there is none to rank among, or fewer than two unseen ones.
    """
    if min(bank_samples, class_bank_samples, unseen_samples) < 2 or (rank_samples is not None and rank_samples < 1):
        raise ChainError(
            f"EstimateUnseen: bank_samples is {bank_samples}, class_bank_samples {class_bank_samples}, rank_samples "
            f"{rank_samples} and unseen_samples {unseen_samples}; needed: at least two samples in each bank, one to rank "
            "among, and two unseen ones."
        )


def check_calibration(rank_noise: float, aim_below: float) -> None:
    """Refuse a calibration that cannot be.

    Args:
        rank_noise: Noise on guesses before they are ranked.
        aim_below: Log-odds by which targets are lowered.

    Raises:
        ChainError: The noise is below 0, or one of them is not finite.
    """
    if not 0 <= rank_noise < math.inf or not math.isfinite(aim_below):
        raise ChainError(
            f"EstimateUnseen: aim_below is {aim_below} and rank_noise {rank_noise}; needed: finite numbers, the noise 0 or "
            "more."
        )


def check_teaching(counts: Mapping[str, int], divergence_weight: float, margin_weight: float, correction: float) -> None:
    """Refuse a teaching that cannot be.

    Args:
        counts: By name, what is counted from 1.
        divergence_weight: Weight of KL.
        margin_weight: Weight of the loss on log-odds.
        correction: Part of the mean miss against which targets move.

    Raises:
        ChainError: A count is below 1, a weight below 0, or both are 0, or the part is not in 0 ... 1.
    """
    if min(counts.values()) < 1:
        raise ChainError(f"ImitateUnseen: {', '.join(f'{k} is {v}' for k, v in counts.items())}; needed: at least 1 each.")
    weights = (divergence_weight, margin_weight)
    if not all(0 <= w < math.inf for w in weights) or sum(weights) == 0:
        raise ChainError(
            f"ImitateUnseen: divergence_weight is {divergence_weight} and margin_weight {margin_weight}; needed: 0 or "
            "more, and one of them above 0."
        )
    if not 0 <= correction <= 1:
        raise ChainError(f"ImitateUnseen: correction is {correction}; needed: 0 (targets stay) to 1.")
