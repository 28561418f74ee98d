"""What `EstimateUnseen` refuses before anything runs."""

import math
from collections.abc import Sequence

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.imitation.compared import BankEstimator
from lightning_unlearn.imitation.estimators import AnswerEstimator, Estimator

__all__ = ["check_calibration", "check_estimators", "check_samples"]


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
    fits = weights is None or (len(weights) == len(estimators) and all(w >= 0 for w in weights) and sum(weights) > 0)
    if not estimators or not fits:
        given = None if weights is None else list(weights)
        raise ChainError(
            f"EstimateUnseen: {len(estimators)} estimators and weights {given}; needed: at least one estimator, and one "
            "weight of 0 or more for each, not all 0, or none at all."
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
        ChainError: A bank has fewer than two samples, or there is none to rank among, or no unseen one.
    """
    if min(bank_samples, class_bank_samples) < 2 or unseen_samples < 1 or (rank_samples is not None and rank_samples < 1):
        raise ChainError(
            f"EstimateUnseen: bank_samples is {bank_samples}, class_bank_samples {class_bank_samples}, rank_samples "
            f"{rank_samples} and unseen_samples {unseen_samples}; needed: at least two samples in each bank, one to rank "
            "among, and one unseen."
        )


def check_calibration(rank_noise: float, aim_below: float) -> None:
    """Refuse a calibration that cannot be.

    Args:
        rank_noise: Noise on guesses before they are ranked.
        aim_below: Log-odds by which targets are lowered.

    Raises:
        ChainError: The noise is below 0, or the other is not finite.
    """
    if not rank_noise >= 0 or not math.isfinite(aim_below):
        raise ChainError(
            f"EstimateUnseen: aim_below is {aim_below} and rank_noise {rank_noise}; needed: a finite number, and 0 or more."
        )
