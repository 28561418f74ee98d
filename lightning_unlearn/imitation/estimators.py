"""Estimators of what a model that never saw a sample would say about it, from the network that did see it, or its surrogate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import head_name, last_hidden, last_stage
from lightning_unlearn.functional.calibration import neighbour_votes
from lightning_unlearn.functional.kernel_regression import KernelRidge
from lightning_unlearn.random import generator

__all__ = [
    "AnswerEstimator",
    "BankEstimator",
    "Copies",
    "Estimator",
    "Fitted",
    "KernelRegression",
    "Neighbours",
    "OwnAnswer",
    "Surrogate",
]


class Estimator(ABC):
    """Gives class probabilities for a sample as if it had never been seen: an `AnswerEstimator` or a `BankEstimator`.

    Class attributes:
        asks_surrogate: Whether the network that is asked is the one that `TrainSurrogate` left.
    """

    asks_surrogate: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @abstractmethod
    def rows(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the estimator needs to know of samples.

        Args:
            network: Gives logits (B, K) of images, in eval mode.
            images: (B, C, H, W), un-augmented and normalised.

        Returns:
            One row per sample, (B, ...).
        """


class AnswerEstimator(Estimator):
    """Says something about a sample by the network's answers alone."""

    @abstractmethod
    def estimate(self, rows: Tensor, num_classes: int) -> Tensor:
        """Probabilities of samples.

        Args:
            rows: Their rows, (N, ...).
            num_classes: K.

        Returns:
            (N, K), rows summing to 1.
        """


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

    Args:
        layer: Where samples are compared: `head` (what enters the head), `last_hidden` (what the last layer of weights before
            the head gives, without its activation), `last_stage` (what enters the last stage, see `functional.anatomy`),
            `pixels`, or the name of a module, whose output counts. Tokens are averaged to one.
        pool: Maps are averaged to so many rows and columns.
    """

    def __init__(self, layer: str = "head", pool: int = 2) -> None:
        if pool < 1:
            raise ChainError(f"{type(self).__name__}: pool is {pool}; needed: at least 1.")
        self.layer = layer
        self.pool = pool

    def rows(self, network: nn.Module, images: Tensor) -> Tensor:
        """See `Estimator.rows`: features."""
        return self.pooled(images) if self.layer == "pixels" else self.pooled(_features(network, images, self.layer))

    def pooled(self, features: Tensor) -> Tensor:
        """Features as rows.

        Args:
            features: Maps (B, C, H, W), tokens (B, T, D), or (B, D), of the layer.

        Returns:
            (B, ...), float32.
        """
        found = features.float()
        if found.ndim == 4 and self.layer != "pixels":
            found = F.adaptive_avg_pool2d(found, self.pool)
        elif found.ndim == 3:
            found = found.mean(1)
        return found.flatten(1)

    @abstractmethod
    def fit(self, bank: Tensor, labels: Tensor, num_classes: int) -> Fitted:
        """Look at the bank.

        Args:
            bank: Rows of retained samples, (M, ...).
            labels: Their labels, (M,), int64.
            num_classes: K.

        Returns:
            What is said about other samples, and about these.
        """


class Copies(AnswerEstimator):
    """The network's mean answer to transformed copies of a sample, such as it was not trained on.

    Every sample gets the same copies, so that estimates can be compared. What a transformation uncovers is filled with the
    mean of the data (zeros, as inputs are normalised).

    Args:
        count: Number of copies.
        shifts: Sizes of shifts in pixels, fractions allowed; copies take them in turn, down or up and right or left at random.
            For an original that was trained with random crops: larger ones than it has seen.
        rotation: Degrees by which copies are turned, clockwise or not at random.
        flip: Whether every second copy is mirrored. Not for digits and letters.
    """

    def __init__(self, count: int = 8, shifts: Sequence[float] = (2, 3, 4), rotation: float = 0.0, flip: bool = True) -> None:
        if count < 1 or not (any(shifts) or rotation or (flip and count > 1)):
            raise ChainError(
                f"Copies: count is {count}, shifts {list(shifts)}, rotation {rotation} and flip {flip}; needed: at least one "
                "copy, and something in which it differs."
            )
        self.count = count
        self.shifts = tuple(shifts)
        self.rotation = rotation
        self.flip = flip

    def rows(self, network: nn.Module, images: Tensor) -> Tensor:
        """See `Estimator.rows`: the logits of all copies, (B, count * K)."""
        source = generator("copies", seed=0)
        logits = []
        for k in range(self.count):
            down, right, turn = (2 * torch.randint(2, (3,), generator=source) - 1).tolist()
            size = self.shifts[k % len(self.shifts)] if self.shifts else 0.0
            # With an even number of sizes each would always, or never, be mirrored.
            turns = k // len(self.shifts) if self.shifts and len(self.shifts) % 2 == 0 else 0
            copy = images.flip(-1) if self.flip and (k + turns) % 2 == 1 else images
            logits.append(network(_moved(copy, down * size, right * size, turn * self.rotation)).float())
        return torch.cat(logits, 1)

    def estimate(self, rows: Tensor, num_classes: int) -> Tensor:
        """See `AnswerEstimator.estimate`; in float64, for in float32 many sure answers would be equal."""
        return rows.double().view(len(rows), self.count, num_classes).softmax(2).mean(1)


class OwnAnswer(AnswerEstimator):
    """The network's own answer: for originals that remember little, such as those trained with augmentation.

    Calibration takes from it what is remembered on average.
    """

    def rows(self, network: nn.Module, images: Tensor) -> Tensor:
        """See `Estimator.rows`: the logits."""
        logits: Tensor = network(images).float()
        return logits

    def estimate(self, rows: Tensor, num_classes: int) -> Tensor:
        """See `AnswerEstimator.estimate`; in float64, for in float32 many sure answers would be equal."""
        return rows.double().softmax(1)


class Surrogate(OwnAnswer):
    """The answer of the network that `TrainSurrogate` left, whose end never saw a forgotten sample, nor one of the bank.

    Estimates of other kinds differ less between originals than models that never saw the samples do; this one was trained, as
    they were.
    """

    asks_surrogate = True


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


def _features(network: nn.Module, images: Tensor, layer: str) -> Tensor:
    """What a layer makes of images."""
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


def _moved(images: Tensor, down: float, right: float, degrees: float) -> Tensor:
    """Images shifted and turned about their middle, bilinear, zeros where nothing was."""
    if not (down or right or degrees):
        return images
    height, width = images.shape[-2:]
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    cos, sin = float(angle.cos()), float(angle.sin())
    # affine_grid asks where each output pixel comes from, in units of half the image.
    matrix = images.new_tensor([
        [cos, -sin * height / width, -2 * right / width],
        [sin * width / height, cos, -2 * down / height],
    ])
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
