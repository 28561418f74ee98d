"""One answer from many classifiers: a majority vote, or the mean of their probabilities."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["majority_vote", "mean_vote"]


def majority_vote(logits: Tensor) -> Tensor:
    """Log-probabilities of a majority vote (SISA: Bourtoule et al., IEEE S&P 2021), ties broken by the mean probability.

    `p = (votes + mean softmax) / (S + 1)`: a distribution whose largest entry is a class with most votes, because a mean
    probability is less than one vote. The votes have no gradient, the mean has.

    Args:
        logits: (S, B, K) of S members.

    Returns:
        (B, K), finite.
    """
    votes = F.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
    return torch.logaddexp(votes.to(logits.dtype).log(), mean_vote(logits)) - math.log(len(logits) + 1)


def mean_vote(logits: Tensor) -> Tensor:
    """Logarithm of the members' mean probabilities.

    Args:
        logits: (S, B, K) of S members.

    Returns:
        (B, K), finite.
    """
    return torch.logsumexp(logits.log_softmax(2), 0) - math.log(len(logits))
