"""Ridge regression with the kernel of a wide ReLU layer: what its training would say, without training it."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

__all__ = ["KernelRidge", "relu_tangent_kernel"]

# Temperatures that are tried; scores of a regression on one-hot labels lie between 0 and 1.
_TEMPERATURES = torch.logspace(-2, 0.5, 26, dtype=torch.float64)
# Samples that are predicted at once.
_ROWS = 2048
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


class KernelRidge:
    """Class probabilities by kernel ridge regression on one-hot labels; solved once, in bank^3 multiplications.

    Scores become probabilities by a softmax; its temperature is the one under which the labels of the bank are most likely,
    each predicted without itself.

    Args:
        bank: Features of labelled samples, (M, ...), at least two.
        labels: Their labels, (M,), int64.
        num_classes: K.
        ridge: Regularisation, in units of the kernel's mean diagonal, above 0.

    Raises:
        ValueError: There are fewer than two labelled samples, their kernel cannot be inverted, or features are not finite.
    """

    def __init__(self, bank: Tensor, labels: Tensor, num_classes: int, ridge: float) -> None:
        if len(bank) < 2:
            raise ValueError(f"{len(bank)} labelled samples are too few; needed: at least two")
        self._bank = bank.flatten(1)
        kernel = relu_tangent_kernel(self._bank, self._bank)
        # A network that has collapsed gives features of length 0; its answer is then that nothing is known.
        kernel.diagonal().add_(ridge * (float(kernel.diagonal().mean()) or 1.0))
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if int(failed):
            finite = bool(kernel.isfinite().all())
            what = (
                f"cannot be inverted with ridge {ridge}; needed: a larger one" if finite else "are not finite; needed: numbers"
            )
            raise ValueError(f"the features of {len(bank)} labelled samples {what}")
        inverse = torch.cholesky_inverse(factor)
        wanted = one_hot(labels, num_classes).double() - 1 / num_classes
        self._weights = inverse @ wanted
        # Leaving a sample out changes its prediction by its weight over its diagonal entry of the inverse.
        self._without = wanted - self._weights / inverse.diagonal()[:, None]
        tried = _TEMPERATURES.to(wanted.device)
        losses = torch.stack([cross_entropy(self._without / temperature, labels) for temperature in tried])
        self._temperature = _TEMPERATURES[int(losses.argmin())]

    def of(self, rows: Tensor) -> Tensor:
        """Probabilities of samples.

        Args:
            rows: Their features, (N, ...).

        Returns:
            (N, K), rows summing to 1, float32.
        """
        # In pieces: the kernel's intermediates are several times its size.
        pieces = torch.split(rows.flatten(1), _ROWS)
        scores = torch.cat([relu_tangent_kernel(piece, self._bank) @ self._weights for piece in pieces])
        return (scores / self._temperature).softmax(1).float()

    def of_bank(self) -> Tensor:
        """Probabilities of the labelled samples, each predicted without itself.

        Returns:
            (M, K), rows summing to 1, float32.
        """
        return (self._without / self._temperature).softmax(1).float()
