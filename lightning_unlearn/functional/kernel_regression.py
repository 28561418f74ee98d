"""Ridge regression with the kernel of a wide ReLU layer: what its training would say, without training it."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

__all__ = ["kernel_regression", "relu_tangent_kernel"]

# Temperatures that are tried; scores of a regression on one-hot labels lie between 0 and 1.
_TEMPERATURES = torch.logspace(-2, 0.5, 26, dtype=torch.float64)
_TINY = torch.finfo(torch.float64).tiny


def relu_tangent_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Neural tangent kernel of an infinitely wide ReLU layer and its linear head (Jacot et al. 2018, NeurIPS).

    With the angle t between two samples: |a| |b| (sin t + 2 (pi - t) cos t) / pi, the arc-cosine kernels of Cho and Saul
    (2009, NIPS).

    Args:
        a: Features, (N, D).
        b: Features, (M, D).

    Returns:
        (N, M), float64.
    """
    a, b = a.double(), b.double()
    lengths = a.norm(dim=1)[:, None] * b.norm(dim=1)
    cos = (normalize(a, eps=_TINY) @ normalize(b, eps=_TINY).T).clamp(-1, 1)
    angle = torch.acos(cos)
    kernel: Tensor = lengths * (torch.sin(angle) + 2 * (torch.pi - angle) * cos) / torch.pi
    return kernel


def kernel_regression(rows: Tensor, bank: Tensor, labels: Tensor, num_classes: int, ridge: float, own: bool = False) -> Tensor:
    """Class probabilities by kernel ridge regression on one-hot labels.

    Scores become probabilities by a softmax; its temperature is the one under which the labels of the bank are most likely,
    each predicted without itself.

    Args:
        rows: Features, (N, D).
        bank: Features of labelled samples, (M, D), at least two.
        labels: Their labels, (M,), int64.
        num_classes: K.
        ridge: Regularisation, in units of the kernel's mean diagonal, above 0.
        own: Whether `rows` are the bank itself: each sample is then predicted without itself.

    Returns:
        (N, K), rows summing to 1, float32.

    Raises:
        ValueError: There are fewer than two labelled samples, their kernel cannot be inverted, or features are not finite.
    """
    if len(bank) < 2:
        raise ValueError(f"{len(bank)} labelled samples are too few; needed: at least two")
    bank = bank.flatten(1)
    kernel = relu_tangent_kernel(bank, bank)
    # A network that has collapsed gives features of length 0; its answer is then that nothing is known.
    kernel.diagonal().add_(ridge * (float(kernel.diagonal().mean()) or 1.0))
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if int(failed):
        finite = bool(kernel.isfinite().all())
        what = f"cannot be inverted with ridge {ridge}; needed: a larger one" if finite else "are not finite; needed: numbers"
        raise ValueError(f"the features of {len(bank)} labelled samples {what}")
    inverse = torch.cholesky_inverse(factor)
    prior = 1 / num_classes
    wanted = one_hot(labels, num_classes).double() - prior
    weights = inverse @ wanted
    # Leaving a sample out changes its prediction by its weight over its diagonal entry of the inverse.
    without = wanted - weights / inverse.diagonal()[:, None]
    losses = torch.stack([cross_entropy(without / temperature, labels) for temperature in _TEMPERATURES.to(without.device)])
    temperature = _TEMPERATURES[int(losses.argmin())]
    scores = without if own else relu_tangent_kernel(rows.flatten(1), bank) @ weights
    return (scores / temperature).softmax(1).float()
