"""Adversarial examples: images next to given ones to which a network gives another label."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_unlearn.functional.divergences import margin

__all__ = ["Adversarial", "nearest_adversarial", "pgd_l2"]


class Adversarial(NamedTuple):
    """Adversarial examples of N images.

    Attributes:
        images: (N, C, H, W), in 0 ... 1.
        labels: The wrong labels that the network gives them, (N,), int64.
        epsilon: Radius within which each was found, L2 over all pixels of 0 ... 1, (N,).
        found: Whether the network's answer to it is that wrong label, (N,), boolean; where no radius was large enough, the
            label is the likeliest wrong one.
    """

    images: Tensor
    labels: Tensor
    epsilon: Tensor
    found: Tensor


def pgd_l2(
    forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: Tensor, step: Tensor, steps: int
) -> Tensor:
    """Projected gradient ascent of the loss within L2 balls (Madry et al. 2018, ICLR), from the images themselves.

    Each step goes `step` along the normalised gradient, then back into the ball, then into 0 ... 1, which only shortens the
    way. An image whose label is another one after a step goes no further. The loss is minus the margin: its gradient has the
    direction of that of cross-entropy, which is that one times 1 - p_y, and does not vanish in float32 where the network is
    sure.

    Args:
        forward: Gives logits (N, K) of images (N, C, H, W) in 0 ... 1; each image's logits depend on it alone.
        images: (N, C, H, W), in 0 ... 1.
        labels: (N,), int64.
        epsilon: Radius of each ball, (N,).
        step: Length of each image's steps, (N,).
        steps: Number of steps.

    Returns:
        (N, C, H, W), in 0 ... 1, detached.
    """
    shape = (-1, *[1] * (images.dim() - 1))
    x = images.detach()
    for taken in range(steps):
        with torch.enable_grad():
            x = x.requires_grad_()
            logits = forward(x)
            (gradient,) = torch.autograd.grad(-margin(logits, labels).sum(), x)
        x = x.detach()
        away = x + step.view(shape) * _unit(gradient) - images
        norm = away.flatten(1).norm(dim=1)
        further = (images + away * (epsilon / norm.clamp(min=epsilon)).view(shape)).clamp(0, 1)
        goes_on = logits.argmax(1) == labels if taken else torch.ones_like(labels, dtype=torch.bool)
        x = torch.where(goes_on.view(shape), further, x)
    return x


def nearest_adversarial(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float = 0.04,
    steps: int = 50,
    step_share: float = 0.1,
    never: Tensor | None = None,
) -> Adversarial:
    """Adversarial examples within the smallest of the radii epsilon, 2 epsilon, 4 epsilon ... that has one.

    The attack of AMUN (Ebrahimpour-Boroojeny, Sundaram and Chandrasekaran 2025): L2-PGD, anew from the image for each
    radius, up to the first step after which the network's label is another one, as in its public code. Radii end where the
    ball holds every image.

    Args:
        forward: See `pgd_l2`.
        images: (N, C, H, W), in 0 ... 1.
        labels: (N,), int64.
        epsilon: The first radius, above 0; 0.04 as published.
        steps: Steps of each attack; 50 as published.
        step_share: Length of a step in radii; a tenth as published.
        never: Classes that are no wrong label, (C,), int64, at most K - 2; None: none.

    Returns:
        One example per image; an image that already has another label takes one step.

    Raises:
        ValueError: `epsilon`, `steps` or `step_share` is out of range.
    """
    if not epsilon > 0 or steps < 1 or not step_share > 0:
        raise ValueError(
            f"epsilon is {epsilon}, steps {steps} and step_share {step_share}; needed: a radius and a share above 0, and at "
            "least one step."
        )
    farthest = images[0].numel() ** 0.5 if len(images) else 0.0
    result, wrong = images.clone(), labels.clone()
    radius = torch.full((len(images),), epsilon, dtype=images.dtype, device=images.device)
    found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    open_ = torch.arange(len(images), device=images.device)

    def answers(pixels: Tensor) -> Tensor:
        logits = forward(pixels)
        if never is None or not len(never):
            return logits
        struck = torch.zeros_like(logits, dtype=torch.bool).index_fill(1, never.to(logits.device), True)
        return logits.masked_fill(struck.scatter(1, labels[open_, None], False), -torch.inf)

    while len(open_):
        x = pgd_l2(answers, images[open_], labels[open_], radius[open_], step_share * radius[open_], steps)
        with torch.no_grad():
            logits = answers(x)
        result[open_] = x
        found[open_] = logits.argmax(1) != labels[open_]
        wrong[open_] = logits.scatter(1, labels[open_, None], -torch.inf).argmax(1)
        open_ = open_[~found[open_] & (radius[open_] < farthest)]
        radius[open_] *= 2
    return Adversarial(result, wrong, radius, found)


def _unit(values: Tensor) -> Tensor:
    """Each sample's values, scaled to the L2 norm 1; zeros stay zeros."""
    # By the largest first: squares of tiny gradients would underflow.
    largest = values.flatten(1).abs().amax(1).view(-1, *[1] * (values.dim() - 1))
    values = torch.where(largest > 0, values / largest, 0.0)
    norm: Tensor = values.flatten(1).norm(dim=1).view_as(largest)
    return values / norm.clamp(min=1)
