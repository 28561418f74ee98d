"""Which weights matter to forgotten classes and not to the others, from one image per class, and the step along them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.functional.residuals import label_residual

__all__ = ["FLOOR", "forgetting_step", "mean_squared_gradient"]

# Added to squared gradients (Yamashita et al. 2023): weights without any gradient then have the ratio 1.
FLOOR = 1e-16


def mean_squared_gradient(network: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Mean over samples of the squared gradient of the cross-entropy: one forward and one backward pass each, no more.

    Runs in eval mode, without autocast; the network is left as it was found.

    Args:
        network: Gives logits (1, K) of an image (1, C, H, W).
        images: (M, C, H, W), M at least 1, on the network's device.
        labels: (M,), int64.
        names: Parameter names.

    Returns:
        By parameter name, of the parameter's shape.
    """
    own = dict(network.named_parameters())
    chosen = [own[name] for name in names]
    sums = [torch.zeros_like(parameter) for parameter in chosen]
    with differentiable_in(network, names):
        for image, label in zip(images.to(chosen[0].dtype), labels, strict=True):
            logits = network(image.unsqueeze(0))
            grads = torch.autograd.grad(logits, chosen, label_residual(logits, label.view(1)), materialize_grads=True)
            sums = [total + grad.square() for total, grad in zip(sums, grads, strict=True)]
    return {name: total / len(images) for name, total in zip(names, sums, strict=True)}


def forgetting_step(forget: Tensor, retain: Tensor, lambda1: float, lambda2: float) -> Tensor:
    """How far each weight of a tensor moves: s * n with n = F_f / F_r and s = min(lambda1, lambda2 / max n).

    The ratio is taken in logarithms. Where it is not a number it is 1, where it is infinite the tensor's largest finite one.

    Args:
        forget: F_f, mean squared gradients on what is forgotten, not negative.
        retain: F_r, the same on what is retained, the same shape.
        lambda1: Largest step per unit of the ratio.
        lambda2: Largest step of any weight.

    Returns:
        The same shape, not negative, at most lambda2.
    """
    ratio = ((forget + FLOOR).log() - (retain + FLOOR).log()).exp()
    finite = ratio[ratio.isfinite()]
    largest = float(finite.max()) if len(finite) else 1.0
    ratio = ratio.nan_to_num(nan=1.0, posinf=largest)
    return ratio * min(lambda1, lambda2 / max(largest, torch.finfo(ratio.dtype).tiny))
