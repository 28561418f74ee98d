"""Estimators that compare a sample with a bank of retained ones, in features of the network."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import head_name, last_hidden, last_stage
from lightning_unlearn.functional.calibration import neighbour_votes
from lightning_unlearn.functional.kernel_regression import KernelRidge
from lightning_unlearn.imitation.estimators import Estimator

__all__ = ["BankEstimator", "Fitted", "KernelRegression", "Neighbours", "features_of"]

# Rows and columns at most that images are compared by: 2,400 photographs of 224 pixels would be rows of 1.4 GB.
_PIXELS = 32


class Fitted(Protocol):
    """What a `BankEstimator` says once it has seen its bank."""

    def of(self, rows: Tensor) -> Tensor:
        """Probabilities of samples by their rows, (N, ...) -> (N, K)."""
        ...

    def of_bank(self) -> Tensor:
        """Probabilities of the samples of the bank, (M, K), each without itself."""
        ...


class BankEstimator(Estimator):
    """Compares a sample with a *bank* of retained ones, in the features of a layer.

    `rows` is not called where these features were computed before, unless a subclass has its own.

    Args:
        layer: Where samples are compared: `head` (what enters the head), `last_hidden` (what the last layer of weights before
            the head gives, without its activation), `last_stage` (what enters the last stage, see `functional.anatomy`),
            `pixels` (averaged to at most 32 rows and columns), or the name of a module, whose output counts. Tokens are
            averaged to one.
        pool: Maps are averaged to so many rows and columns; not `pixels`.
    """

    def __init__(self, layer: str = "head", pool: int = 2) -> None:
        if pool < 1:
            raise ChainError(f"{type(self).__name__}: pool is {pool}; needed: at least 1.")
        self.layer = layer
        self.pool = pool

    def rows(self, network: nn.Module, images: Tensor) -> Tensor:
        """See `Estimator.rows`: features."""
        return self.pooled(images) if self.layer == "pixels" else self.pooled(features_of(network, images, self.layer))

    def pooled(self, features: Tensor) -> Tensor:
        """Features as rows.

        Args:
            features: Maps (B, C, H, W), or square ones (B, S, S, C), tokens (B, T, D), or (B, D), of the layer.

        Returns:
            (B, ...), float32.
        """
        found = features.float()
        if self.layer == "pixels":
            height, width = found.shape[-2:]
            found = F.adaptive_avg_pool2d(found, (min(_PIXELS, height), min(_PIXELS, width)))
        elif found.ndim == 4:
            if found.shape[1] == found.shape[2] != found.shape[3]:
                found = found.movedim(-1, 1)  # square maps with channels last, as of Swin
            found = F.adaptive_avg_pool2d(found, self.pool)
        elif found.ndim == 3:
            found = found.mean(1)
        return found.flatten(1)

    @abstractmethod
    def fit(self, bank: Tensor, labels: Tensor, num_classes: int) -> Fitted:
        """Look at the bank.

        Args:
            bank: Rows of retained samples, (M, ...), on the CPU.
            labels: Their labels, (M,), int64.
            num_classes: K.

        Returns:
            What is said about other samples, and about these in their order.
        """


class Neighbours(BankEstimator):
    """The labels of the nearest retained samples.

    Args:
        k: How many of them vote.
        layer: See `BankEstimator`.
        pool: See `BankEstimator`.
    """

    def __init__(self, k: int = 15, layer: str = "head", pool: int = 2) -> None:
        super().__init__(layer, pool)
        if k < 1:
            raise ChainError(f"Neighbours: k is {k}; needed: at least 1.")
        self.k = k

    def fit(self, bank: Tensor, labels: Tensor, num_classes: int) -> Fitted:
        """See `BankEstimator.fit`: votes."""
        return _Votes(bank, labels, self.k, num_classes)


@dataclass(frozen=True)
class _Votes:
    bank: Tensor
    labels: Tensor
    k: int
    num_classes: int

    def of(self, rows: Tensor) -> Tensor:
        return neighbour_votes(rows, self.bank, self.labels, self.k, self.num_classes)

    def of_bank(self) -> Tensor:
        return neighbour_votes(self.bank, self.bank, self.labels, self.k, self.num_classes, own=True)


class KernelRegression(BankEstimator):
    """A regression on the labels of retained samples, in the network's features: a wide layer trained on them, in closed form.

    Samples of the bank are predicted without themselves. Costs bank^3 multiplications and bank^2 numbers of memory.

    Args:
        ridge: Regularisation, in units of the kernel's mean diagonal, above 0. Small: wrong labels near a sample count as much
            as they do for a network that has learnt them.
        layer: See `BankEstimator`.
        pool: See `BankEstimator`.
    """

    def __init__(self, ridge: float = 0.1, layer: str = "head", pool: int = 2) -> None:
        super().__init__(layer, pool)
        if not ridge > 0:
            raise ChainError(f"KernelRegression: ridge is {ridge}; needed: above 0.")
        self.ridge = ridge

    def fit(self, bank: Tensor, labels: Tensor, num_classes: int) -> Fitted:
        """See `BankEstimator.fit`: the regression."""
        try:
            return KernelRidge(bank, labels, num_classes, self.ridge)
        except ValueError as error:
            raise ChainError(f"KernelRegression: {error}.") from error


def features_of(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """What a layer makes of images.

    Args:
        network: In eval mode.
        images: (B, C, H, W).
        layer: See `BankEstimator`; not `pixels`.

    Returns:
        (B, ...).

    Raises:
        ChainError: There is no such module.
    """
    modules = dict(network.named_modules())
    caught: list[Tensor] = []
    if layer in ("head", "last_stage"):
        name = head_name(network) if layer == "head" else last_stage(network)[0]
        handle = modules[name].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    else:
        name = last_hidden(network) if layer == "last_hidden" else layer
        if name not in modules:
            listed = ", ".join(list(modules)[1:30])
            raise ChainError(
                f"There is no module {name!r}. Modules: {listed}. Or take head, last_hidden, last_stage or pixels."
            )
        handle = modules[name].register_forward_hook(lambda _, inputs, output: caught.append(output))
    try:
        network(images)
    finally:
        handle.remove()
    return caught[0]
