"""How sure a prediction is and how far two predictions are apart: per sample, in nats, in float64."""

import math

import torch
from torch import Tensor

__all__ = ["entropy", "jensen_shannon", "kl_divergence", "margin", "modified_entropy"]


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Margin of the true class, phi = log p_y - log sum_{k != y} p_k.

    It is the logit of the true-class confidence, so it orders samples as the confidence does; but a
    confidence rounds to 1 from phi = 37 on (17 in float32) and makes ties of the surest samples, which are
    what an attack looks at.

    Args:
        logits: (N, K), K >= 2, any floating type.
        targets: (N,), int64, in 0 ... K - 1.

    Returns:
        (N,), float64; finite for finite logits.

    Raises:
        ValueError: There are fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class; needed: at least two, as a margin is against the other classes.")
    z = logits.double()
    y = targets.unsqueeze(1)
    others = z.scatter(1, y, -math.inf).logsumexp(1)
    return z.gather(1, y).squeeze(1) - others


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_k p_k (log p_k - log q_k), the sum over classes, one value per sample.

    Args:
        log_p: Log-probabilities, (N, K); -inf where p_k = 0, a term that counts 0.
        log_q: Log-probabilities, (N, K).

    Returns:
        (N,), float64, >= 0 up to rounding; inf where q_k = 0 < p_k.
    """
    log_p, log_q = log_p.double(), log_q.double()
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1)


def jensen_shannon(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Jensen-Shannon divergence (KL(a || m) + KL(b || m)) / 2 with m = (a + b) / 2, one value per sample.

    Args:
        logits_a: (N, K), any floating type.
        logits_b: (N, K).

    Returns:
        (N,), float64, in 0 ... log 2, symmetric in the arguments.
    """
    log_a, log_b = logits_a.double().log_softmax(1), logits_b.double().log_softmax(1)
    log_m = torch.logaddexp(log_a, log_b) - math.log(2)
    half_sum = (kl_divergence(log_a, log_m) + kl_divergence(log_b, log_m)) / 2
    return half_sum.clamp(0.0, math.log(2))


def entropy(logits: Tensor) -> Tensor:
    """Entropy -sum_k p_k log p_k of the prediction.

    Args:
        logits: (N, K), any floating type.

    Returns:
        (N,), float64, in 0 ... log K.
    """
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def modified_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Modified entropy -(1 - p_y) log p_y - sum_{k != y} p_k log(1 - p_k).

    Small for a prediction that is sure and right, large for one that is sure and wrong; the plain entropy is
    small for both (Song & Mittal, USENIX Security 2021). Each value depends on its own sample alone.

    Args:
        logits: (N, K), K >= 2, any floating type.
        targets: (N,), int64, in 0 ... K - 1.

    Returns:
        (N,), float64, >= 0; finite for finite logits.
    """
    z = logits.double()
    log_p = z.log_softmax(1)
    p = log_p.exp()
    # 1 - p cancels only for the largest p: there the other classes are summed instead.
    top = z.argmax(1, keepdim=True)
    rest = z.scatter(1, top, -math.inf).logsumexp(1, keepdim=True) - z.logsumexp(1, keepdim=True)
    log_not_p = torch.log1p(-p.scatter(1, top, 0.0)).scatter(1, top, rest)
    y = targets.unsqueeze(1)
    wrong = (p * log_not_p).scatter(1, y, 0.0).sum(1)
    right = (log_not_p.exp() * log_p).gather(1, y).squeeze(1)
    return -(right + wrong)
