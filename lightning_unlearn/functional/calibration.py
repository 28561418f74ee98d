"""Estimates of what a model that never saw a sample would say, and their calibration."""

import torch
from torch import Tensor

__all__ = ["log_odds", "match_quantiles", "neighbour_votes", "strike_classes"]


def log_odds(probabilities: Tensor, targets: Tensor, floor: float = 1e-6) -> Tensor:
    """Log odds of the label, log p_y - log(1 - p_y).

    Args:
        probabilities: (N, K).
        targets: Labels, (N,), int64.
        floor: Smallest probability that is told from zero, on both sides.

    Returns:
        (N,), float64.
    """
    p = probabilities.double().gather(1, targets[:, None])[:, 0].clamp(floor, 1 - floor)
    return torch.log(p) - torch.log1p(-p)


def match_quantiles(
    probabilities: Tensor, targets: Tensor, unseen: Tensor, noise: float = 0.0, source: torch.Generator | None = None
) -> Tensor:
    """Give the samples' log-odds of their labels the distribution that unseen samples have.

    The sample with the i-th smallest estimated log-odds gets the i-th quantile of the unseen ones; the rest of its
    probability is spread over the other classes as estimated.

    Args:
        probabilities: Estimates, (N, K).
        targets: Labels, (N,), int64.
        unseen: Log-odds of unseen samples, (U,), at least one.
        noise: Standard deviation of noise on the log-odds before ranking, in units of their own deviation.
        source: Generator of the noise, on the CPU.

    Returns:
        (N, K), rows summing to 1, the dtype of `probabilities`.

    Raises:
        ValueError: There is no unseen sample.
    """
    if len(unseen) == 0:
        raise ValueError("match_quantiles needs at least one unseen sample.")
    estimate = log_odds(probabilities, targets)
    if noise > 0 and len(estimate) > 1:
        estimate = estimate + noise * estimate.std() * torch.randn(len(estimate), generator=source).to(estimate)
    rank = torch.empty_like(estimate)
    rank[estimate.argsort(stable=True)] = torch.arange(len(estimate), device=rank.device, dtype=rank.dtype)
    p = torch.sigmoid(torch.quantile(unseen.double(), (rank + 0.5) / len(rank)))
    others = probabilities.double().clamp(min=1e-6).scatter(1, targets[:, None], 0.0)
    others = others * ((1 - p) / others.sum(1))[:, None]
    return others.scatter(1, targets[:, None], p[:, None]).to(probabilities.dtype)


def neighbour_votes(features: Tensor, bank: Tensor, labels: Tensor, k: int, num_classes: int) -> Tensor:
    """Share of each class among the nearest samples of a bank, by cosine similarity.

    Args:
        features: (N, D).
        bank: (M, D), M >= k.
        labels: Labels of the bank, (M,), int64.
        k: Number of neighbours.
        num_classes: K.

    Returns:
        (N, K), rows summing to 1.
    """
    bank = torch.nn.functional.normalize(bank.flatten(1).float(), dim=1)
    votes = []
    for chunk in torch.split(torch.nn.functional.normalize(features.flatten(1).float(), dim=1), 1024):
        nearest = (chunk @ bank.T).topk(min(k, len(bank)), dim=1).indices
        votes.append(torch.nn.functional.one_hot(labels[nearest], num_classes).float().mean(1))
    return torch.cat(votes)


def strike_classes(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Probabilities without some classes, the rest scaled to 1.

    Args:
        probabilities: (N, K).
        classes: Classes to strike, (C,), int64, fewer than K.

    Returns:
        (N, K), rows summing to 1.
    """
    rest = probabilities.double().clamp(min=1e-12)
    rest[:, classes] = 0.0
    return (rest / rest.sum(1, keepdim=True)).to(probabilities.dtype)
