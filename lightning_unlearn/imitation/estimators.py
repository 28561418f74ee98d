"""Estimators of what a model that never saw a sample would say about it, from the network that did see it, or its surrogate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.random import generator

__all__ = ["AnswerEstimator", "Copies", "Estimator", "OwnAnswer", "Surrogate"]


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
        """See `Estimator.rows`: the mean answer, (B, K), in float64, for in float32 many sure answers would be equal."""
        source = generator("copies", seed=0)
        total = torch.zeros((), dtype=torch.float64)
        for k in range(self.count):
            down, right, turn = (2 * torch.randint(2, (3,), generator=source) - 1).tolist()
            size = self.shifts[k % len(self.shifts)] if self.shifts else 0.0
            # With an even number of sizes each would always, or never, be mirrored.
            turns = k // len(self.shifts) if self.shifts and len(self.shifts) % 2 == 0 else 0
            copy = images.flip(-1) if self.flip and (k + turns) % 2 == 1 else images
            logits: Tensor = network(_moved(copy, down * size, right * size, turn * self.rotation))
            total = total.to(logits.device) + logits.double().softmax(1)
        return total / self.count

    def estimate(self, rows: Tensor, num_classes: int) -> Tensor:
        """See `AnswerEstimator.estimate`: the rows themselves."""
        return rows


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
    """The answer of the network that `TrainSurrogate` left, whose end never saw a forgotten sample, nor one held out.

    Estimates of other kinds differ less between originals than models that never saw the samples do; this one was trained, as
    they were.
    """

    asks_surrogate = True


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
