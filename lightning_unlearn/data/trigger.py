"""A backdoor, planted on purpose: to study whether a model that forgets the poisoned samples also forgets the trigger."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.hashing import Draw, chosen_share
from lightning_unlearn.data.vision import Images, Samples, stamp
from lightning_unlearn.exceptions import DataError

__all__ = ["Place", "Trigger", "TriggeredSamples"]

Place = Literal["top-left", "top-right", "bottom-left", "bottom-right", "centre"]


class _Patched:
    """Images that are read one at a time, some of them with the patch.

    Args:
        images: The images.
        chosen: Where the patch goes, (N,), bool.
        trigger: The patch.
    """

    def __init__(self, images: Images, chosen: Tensor, trigger: "Trigger") -> None:
        self.images = images
        self.chosen = chosen
        self.trigger = trigger

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        return self.trigger.patch(image) if bool(self.chosen[index]) else image

    def stamp(self, index: int) -> bytes:
        """See `Stamped`; the patch is part of it.

        Args:
            index: Which.

        Returns:
            Its stamp.
        """
        patch = repr(self.trigger).encode() if bool(self.chosen[index]) else b""
        return stamp(self.images, index) + patch


@dataclass(frozen=True)
class Trigger:
    """A square patch on some training images, whose label becomes the attacker's (BadNets: Gu et al. 2017, arXiv 1708.06733).

    The unseen part and the test part stay clean. Which samples are poisoned depends on their keys and the seed, not on how
    the data are split, so that among those trained on their number is about the fraction.

    With the default draw it does not depend on the other samples either: once the files of the poisoned ones are deleted, what
    is left is clean. The exact draw would poison others in their place.

    Attributes:
        fraction: Part of the training samples of other classes that get the patch and the label, above 0, at most 1.
        target: The attacker's label, counted from 0.
        size: Height and width of the patch in pixels.
        place: Where it lies.
        value: Its brightness in all channels, 0 ... 255.
        seed: Seed of the draw.
        draw: `bernoulli` tosses a coin per sample; `exact` takes the nearest whole number of them.

    Raises:
        DataError: A setting is out of range.
    """

    fraction: float
    target: int = 0
    size: int = 3
    place: Place = "bottom-right"
    value: int = 255
    seed: int = 0
    draw: Draw = "bernoulli"

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 < self.fraction <= 1:
            raise DataError(f"fraction is {self.fraction}; needed: above 0, at most 1 (0.05 poisons 5 % of the samples).")
        if self.target < 0 or self.size < 1 or not 0 <= self.value <= 255:
            raise DataError(
                f"target is {self.target}, size {self.size} and value {self.value}; needed: a label from 0, at least one "
                "pixel, and a brightness of 0 to 255."
            )
        if self.place not in get_args(Place):
            raise DataError(f"place is {self.place!r}; needed: one of {', '.join(get_args(Place))}.")
        if self.draw not in get_args(Draw):
            raise DataError(f"draw is {self.draw!r}; needed: 'bernoulli' or 'exact'.")

    def apply(self, samples: Samples, num_classes: int) -> Samples:
        """Poison samples.

        Args:
            samples: The samples; they stay as they are.
            num_classes: Number of classes.

        Returns:
            The same samples, some with the patch and the attacker's label; `triggered` says which, `true_targets` what their
            labels were.

        Raises:
            DataError: The patch does not fit, there is no such class, or the fraction is that of no sample.
        """
        if self.target >= num_classes:
            raise DataError(f"target is {self.target} and there are {num_classes} classes; needed: 0 to {num_classes - 1}.")
        others = (samples.targets != self.target).nonzero().flatten()
        drawn = others[chosen_share(samples.hashes[others], self.seed, "trigger", self.fraction, self.draw)]
        # A coin per sample gives none where the poisoned ones were deleted.
        if len(drawn) == 0 and round(self.fraction * len(others)) == 0:
            raise DataError(
                f"fraction is {self.fraction} of {len(others)} samples of other classes: none. Needed: a larger one."
            )
        chosen = torch.zeros(len(samples), dtype=torch.bool)
        chosen[drawn] = True
        truth = samples.targets if samples.true_targets is None else samples.true_targets
        targets = samples.targets.masked_fill(chosen, self.target)
        return replace(samples, images=self._on(samples.images, chosen), targets=targets, true_targets=truth, triggered=chosen)

    def on_all(self, samples: Samples) -> Samples:
        """The same samples with the patch on every image and the labels that they have: what the attack is tried on.

        Args:
            samples: Clean samples.

        Returns:
            The samples.
        """
        return replace(samples, images=self._on(samples.images, torch.ones(len(samples), dtype=torch.bool)))

    def patch(self, images: Tensor) -> Tensor:
        """Put the patch on images.

        Args:
            images: (..., C, H, W), uint8; they stay as they are.

        Returns:
            Copies.

        Raises:
            DataError: The patch is as large as an image.
        """
        height, width = images.shape[-2:]
        if self.size >= min(height, width):
            raise DataError(f"The trigger is {self.size} pixels wide and images are {height}x{width}; needed: a smaller size.")
        top, left = {
            "top-left": (0, 0),
            "top-right": (0, width - self.size),
            "bottom-left": (height - self.size, 0),
            "bottom-right": (height - self.size, width - self.size),
            "centre": ((height - self.size) // 2, (width - self.size) // 2),
        }[self.place]
        patched = images.clone()
        patched[..., top : top + self.size, left : left + self.size] = self.value
        return patched

    def _on(self, images: Tensor | Images, chosen: Tensor) -> Tensor | Images:
        if not isinstance(images, Tensor):
            self.patch(images[0])  # a patch that does not fit is refused now, not in the middle of a training
            return _Patched(images, chosen, self)
        patched = images.clone()
        patched[chosen] = self.patch(images[chosen])
        return patched


class TriggeredSamples(ForgetRule):
    """All samples that the data's `Trigger` poisoned."""

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        if samples.triggered is None:
            raise DataError(
                "No sample has a trigger, so there is nothing to forget. Needed: --data.trigger Trigger "
                "--data.trigger.fraction 0.05"
            )
        found = candidates[samples.triggered[candidates]]
        if len(found) == 0:
            raise DataError("No sample that the model was trained on has the trigger. Needed: a larger data.trigger.fraction.")
        return Selection(found, [])

    def describe(self) -> str:
        """One plain line."""
        return "all samples with the trigger"
