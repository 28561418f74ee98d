"""Wrong labels, added on purpose: to study how a model is repaired where the truth is known."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from lightning_unlearn.data.hashing import order, uniform
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

__all__ = ["LabelNoise"]


@dataclass(frozen=True)
class LabelNoise:
    """Symmetric label noise: chosen samples get a label drawn evenly from the other classes.

    Attributes:
        fraction: Part of the samples whose label becomes wrong, in 0 ... 1.
        seed: Seed of the draws.
        flip: `exact` changes the nearest whole number of labels; `bernoulli` tosses a coin per sample: the
            count varies, but no label depends on which other samples there are.

    Raises:
        DataError: `fraction` or `flip` is out of range.
    """

    fraction: float
    seed: int = 0
    flip: Literal["exact", "bernoulli"] = "exact"

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 <= self.fraction <= 1:
            raise DataError(f"fraction is {self.fraction}; needed: 0 to 1 (0.2 makes 20 % of the labels wrong).")
        if self.flip not in ("exact", "bernoulli"):
            raise DataError(f"flip is {self.flip!r}; needed: 'exact' or 'bernoulli'.")

    def apply(self, samples: Samples, num_classes: int) -> Samples:
        """Change labels.

        Args:
            samples: The samples; they stay as they are.
            num_classes: Number of classes, at least 2.

        Returns:
            The same samples with noisy `targets`; what they were before is in `true_targets`.

        Raises:
            DataError: There is no other class to draw from.
        """
        if num_classes < 2:
            raise DataError(f"Label noise needs another class to draw from, and there are {num_classes} classes.")
        hashes, targets = samples.hashes, samples.targets
        if self.flip == "exact":
            chosen = order(hashes, self.seed, "noise/which")[: round(self.fraction * len(samples))]
        else:
            chosen = (uniform(hashes, self.seed, "noise/which") < self.fraction).nonzero().flatten()
        # A step of 1 ... K - 1 from the true label, round the circle, reaches each other class equally often.
        step = 1 + (uniform(hashes[chosen], self.seed, "noise/label") * (num_classes - 1)).long()
        noisy = targets.clone()
        noisy[chosen] = torch.remainder(targets[chosen] + step, num_classes)
        truth = targets if samples.true_targets is None else samples.true_targets
        return replace(samples, targets=noisy, true_targets=truth)
