"""Wrong labels, added on purpose: to study how a model is repaired where the truth is known."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.hashing import Draw, chosen_share, uniform
from lightning_unlearn.data.vision import Samples, hash_of_key
from lightning_unlearn.exceptions import DataError

__all__ = ["LabelNoise", "NoisyLabels"]


@dataclass(frozen=True)
class LabelNoise:
    """Label noise: chosen samples get a label drawn evenly from the other classes, or two classes are confused.

    Attributes:
        fraction: Part of the samples whose label becomes wrong, in 0 ... 1; with `swap`, of the samples of each of the two
            classes.
        seed: Seed of the draws.
        flip: `exact` changes the nearest whole number of labels; `bernoulli` tosses a coin per sample: the
            count varies, but no label depends on which other samples there are. Beside a checkpoint `exact` counts the samples
            that there were then; with `swap` it cannot, once some are gone.
        swap: Two labels: chosen samples of either class get the label of the other, and no others change. A model that has
            forgotten these samples no longer confuses the two classes (interclass confusion test, Goel et al. 2022,
            arXiv 2201.06640).

    Raises:
        DataError: `fraction`, `flip` or `swap` is out of range.
    """

    fraction: float
    seed: int = 0
    flip: Draw = "exact"
    swap: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 <= self.fraction <= 1:
            raise DataError(f"fraction is {self.fraction}; needed: 0 to 1 (0.2 makes 20 % of the labels wrong).")
        if self.flip not in get_args(Draw):
            raise DataError(f"flip is {self.flip!r}; needed: 'exact' or 'bernoulli'.")
        if self.swap is not None and (len(set(self.swap)) != 2 or len(self.swap) != 2 or min(self.swap) < 0):
            raise DataError(f"swap is {list(self.swap)}; needed: two different labels, counted from 0.")

    def apply(self, samples: Samples, num_classes: int, known: Collection[str] = ()) -> Samples:
        """Change labels.

        Args:
            samples: The samples; they stay as they are.
            num_classes: Number of classes, at least 2.
            known: Keys of all samples that there were when the labels were first changed, where some are gone or came since.

        Returns:
            The same samples with noisy `targets`; what they were before is in `true_targets`.

        Raises:
            DataError: There is no other class to draw from, or no sample of a class that is to be swapped.
        """
        if num_classes < 2:
            raise DataError(f"Label noise needs another class to draw from, and there are {num_classes} classes.")
        noisy = samples.targets.clone()
        if self.swap is None:
            chosen = self._chosen(samples.hashes, known)
            # A step of 1 ... K - 1 from the true label, round the circle, reaches each other class equally often.
            step = 1 + (uniform(samples.hashes[chosen], self.seed, "noise/label") * (num_classes - 1)).long()
            noisy[chosen] = torch.remainder(samples.targets[chosen] + step, num_classes)
        else:
            for label, other in (self.swap, self.swap[::-1]):
                members = (samples.targets == label).nonzero().flatten()
                if len(members) == 0:
                    raise DataError(f"There is no training sample of class {label}, which is to be swapped with {other}.")
                noisy[members[self._chosen(samples.hashes[members])]] = other
        truth = samples.targets if samples.true_targets is None else samples.true_targets
        return replace(samples, targets=noisy, true_targets=truth)

    def _chosen(self, hashes: Tensor, known: Collection[str] = ()) -> Tensor:
        """Positions of the samples whose label becomes wrong."""
        if known and self.flip == "exact":
            all_of_them = torch.tensor([hash_of_key(key) for key in known])
            drawn = all_of_them[chosen_share(all_of_them, self.seed, "noise/which", self.fraction, self.flip)]
            return torch.isin(hashes, drawn).nonzero().flatten()
        return chosen_share(hashes, self.seed, "noise/which", self.fraction, self.flip)


class NoisyLabels(ForgetRule):
    """All samples whose label is known to be wrong: those that `LabelNoise` changed."""

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        if samples.true_targets is None:
            raise DataError(
                "No label is known to be wrong: the data have no label noise. Add some with --data.label_noise, or list "
                "suspected samples in a file for ListedSamples."
            )
        wrong = candidates[samples.targets[candidates] != samples.true_targets[candidates]]
        if len(wrong) == 0:
            raise DataError("No training sample has a wrong label, so there is nothing to forget. Add label noise.")
        return Selection(wrong, [])

    def describe(self) -> str:
        """One plain line."""
        return "all samples with labels made wrong"
