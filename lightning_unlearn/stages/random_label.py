"""Teach wrong labels for what is forgotten."""

import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.hashing import uniform
from lightning_unlearn.random import run_seed
from lightning_unlearn.stages.alternating import AlternatingStage

__all__ = ["RandomLabel", "wrong_labels"]


def wrong_labels(targets: Tensor, hashes: Tensor, classes: int, seed: int) -> Tensor:
    """A wrong label for every sample, uniform over the other classes.

    Args:
        targets: Labels, (N,), int64.
        hashes: Key hashes, (N,), int64: a sample keeps its wrong label whatever else is deleted.
        classes: K, at least 2.
        seed: Seed of the draw.

    Returns:
        (N,), int64, nowhere equal to `targets`.
    """
    return (targets + 1 + (uniform(hashes, seed, "random label") * (classes - 1)).long()) % classes


class RandomLabel(AlternatingStage):
    """Random labels (Graves, Nagisetty and Ganesh 2021, AAAI; RL in Fan et al. 2024, ICLR): D_f with wrong labels, then D_r.

    Each forgotten sample has one wrong label, drawn once. Each epoch is a pass over the forgotten and one over the retained
    samples, with one optimiser. Runs in train mode, as published: BatchNorm sees forgotten samples alone in the first pass.

    Args:
        **kwargs: See `AlternatingStage`.
    """

    _labels: Tensor

    def on_fit_start(self) -> None:
        """Draw the labels, for the whole training set: a table that is asked by sample index."""
        samples = self.data.samples
        drawn = wrong_labels(samples.targets, samples.hashes, self.num_classes, run_seed())
        self._labels = drawn.to(self.device)

    def forget_objective(self, batch: dict[str, Batch]) -> Tensor:
        """See `AlternatingStage.forget_objective`: mean cross-entropy with the wrong labels."""
        forget = batch["forget"]
        logits = self.classifier(forget.input)
        return self.mean(F.cross_entropy(logits, self._labels[forget.index], reduction="none"), forget)
