"""Mixtures of estimates of what a model that never saw a sample would say, chosen where the truth is known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_unlearn.functional.calibration import log_odds

__all__ = ["choose_mixture", "faithfulness", "mixed"]

# Rounds of the greedy choice: weights come in tenths.
_ROUNDS = 10
# How much estimates of trained samples scatter by what is remembered, in units of how much they are lifted by it on average.
_SCATTER = 1.5


def mixed(guesses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean; a little of everything: a mean of a few answers does not tell smaller probabilities apart.

    Args:
        guesses: Probabilities of several estimators, each (N, K).
        weights: One per estimator, 0 or more, not all 0.

    Returns:
        (N, K), float64, rows summing to 1.
    """
    total = sum(weight * guess.double() for weight, guess in zip(weights, guesses, strict=True)) / sum(weights)
    assert isinstance(total, Tensor)
    return 0.98 * total + 0.02 / total.shape[1]


def faithfulness(members: Tensor, unseen: Tensor, truth: Tensor) -> float:
    """How well estimates would follow the answers of a model that never saw the samples they are for.

    The correlation of estimated and true log-odds over unseen samples, attenuated by memory: samples that the network was
    trained on are estimated d deviations higher on average, and scatter by about as much, which leaves
    1 / sqrt(1 + (1.5 d)^2) of the correlation. The factor was measured on CIFAR-10 with three forget sets, fourteen mixtures
    and two references each, for which the order of mixtures by this figure was that of their correlation to references but
    for neighbours closer than 0.02.

    Args:
        members: Estimated log-odds of samples that were trained on, (M,).
        unseen: Estimated log-odds of unseen samples, (U,), at least two.
        truth: True log-odds of those, (U,).

    Returns:
        In -1 ... 1, higher is better; 0 where estimates are constant.
    """
    memory = (members.mean() - unseen.mean()) / unseen.std().clamp(min=1e-9)
    together = torch.corrcoef(torch.stack([unseen, truth]))[0, 1].nan_to_num(0.0)
    return float(together / (1 + (_SCATTER * memory) ** 2).sqrt())


def choose_mixture(
    members: Sequence[Tensor], member_labels: Tensor, unseen: Sequence[Tensor], labels: Tensor, truth: Tensor
) -> list[float]:
    """The most faithful mixture, greedily with replacement (Caruana et al. 2004, ICML).

    Args:
        members: Each estimator's probabilities for samples that were trained on, (M, K).
        member_labels: Their labels, (M,), int64.
        unseen: Each estimator's probabilities for unseen samples, (U, K).
        labels: Their labels, (U,), int64.
        truth: The network's own log-odds of those labels, (U,).

    Returns:
        A weight per estimator; they sum to 1.
    """

    def score(weights: Sequence[float]) -> float:
        return faithfulness(log_odds(mixed(members, weights), member_labels), log_odds(mixed(unseen, weights), labels), truth)

    best = [0.0] * len(unseen)
    for _ in range(_ROUNDS):
        best = max(([w + (i == k) for i, w in enumerate(best)] for k in range(len(best))), key=score)
    return [weight / _ROUNDS for weight in best]
