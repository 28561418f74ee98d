"""RMIA, the relative membership inference attack, offline: a few reference models, none trained on the sample.

Zarifzadeh, Liu & Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024.
"""

import math

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError

__all__ = ["rmia"]


def rmia(
    target: Tensor,
    references: Tensor,
    population_target: Tensor,
    population_references: Tensor,
    gamma: float = 1.0,
    a: float = 0.3,
) -> Tensor:
    """Share of population samples z against which the model is surer of x than models that never saw x are.

    The score of x is the share of z with LR(x, z) = (p(x | u) / p(x)) / (p(z | u) / p(z)) >= gamma. p(x) is the mean of
    p(x | reference); the references never saw x, and half of all models would have, so it is raised to
    ((1 + a) p(x) + 1 - a) / 2. No model saw z, so p(z) stays as it is.

    Args:
        target: Log-probabilities of the label under the attacked model, (N,), or of several models, (U, N).
        references: The same under R reference models that never saw these samples, (R, N), 1 to 4 for an attack that
            costs what this one promises; more are allowed.
        population_target: Of population samples, which no model saw, under the attacked models, (Z,) or (U, Z).
        population_references: Of population samples under the reference models, (R, Z).
        gamma: How much surer, > 0.
        a: How much surer a model is of its own samples than of others, in 0 ... 1: 1 takes p(x) as it is. The paper
            chooses it with reference models; 0.3 is its value for CIFAR-10.

    Returns:
        Scores of `target`'s shape, float64, in 0 ... 1; larger says member. Comparable between samples.
    """
    _check(target, references, population_target, population_references, gamma, a)
    lead = target.shape[:-1]
    of_x = target.double().reshape(-1, target.shape[-1]) - _log_mean(references, a)
    of_z = population_target.double().reshape(len(of_x), -1) - _log_mean(population_references, 1.0)
    # LR >= gamma where the log-ratio of z is at most that of x less log gamma: counted in the sorted ratios of z.
    count = torch.searchsorted(of_z.sort(1).values, (of_x - math.log(gamma)).contiguous(), right=True)
    return (count.double() / of_z.shape[1]).reshape(*lead, -1)


def _log_mean(log_p: Tensor, a: float) -> Tensor:
    """Log of ((1 + a) mean p + 1 - a) / 2 over models.

    Args:
        log_p: (R, N).
        a: In 0 ... 1.

    Returns:
        (N,), float64.
    """
    mean = log_p.double().logsumexp(0) - math.log(len(log_p)) + math.log((1 + a) / 2)
    return mean if a == 1 else torch.logaddexp(mean, mean.new_tensor(math.log((1 - a) / 2)))


def _check(target: Tensor, references: Tensor, z_target: Tensor, z_references: Tensor, gamma: float, a: float) -> None:
    """Check the input of `rmia`.

    Raises:
        DataError: The shapes do not fit, a log-probability is above 0, NaN or -inf, or `gamma` or `a` is out of range.
    """
    given = [tuple(t.shape) for t in (target, references, z_target, z_references)]
    fits = (
        target.ndim in (1, 2)
        and target.shape[:-1] == z_target.shape[:-1]
        and references.shape == (len(references), target.shape[-1])
        and z_references.shape == (len(references), z_target.shape[-1])
        and 0 not in (*references.shape, *z_target.shape)
    )
    if not fits:
        raise DataError(
            f"Log-probabilities of shapes {given}; needed: (N,) or (U, N), (R, N), (Z,) or (U, Z), (R, Z), none empty."
        )
    for values in (target, references, z_target, z_references):
        if bool((values > 0).any() | values.isnan().any() | values.isinf().any()):
            raise DataError("Log-probabilities above 0, NaN or -inf; needed: log p of the label, taken from the logits.")
    if not (gamma > 0 and 0 <= a <= 1):
        raise DataError(f"gamma {gamma} and a {a}; needed: gamma above 0, a in 0 to 1.")
