"""Teach wrong labels for what is forgotten."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.hashing import uniform
from lightning_unlearn.random import run_seed
from lightning_unlearn.stages.alternating import AlternatingStage

__all__ = ["RandomLabel", "wrong_labels"]


def wrong_labels(targets: Tensor, hashes: Tensor, classes: int, seed: int, draw: int = 0, gone: Tensor | None = None) -> Tensor:
    """A wrong label for every sample, uniform over the other classes.

    Args:
        targets: Labels, (N,), int64.
        hashes: Key hashes, (N,), int64: a sample keeps its wrong label whatever else is deleted.
        classes: K, at least 2.
        seed: Seed of the draw.
        draw: Its number; others give other labels.
        gone: Classes that are taught to nobody, (C,); None: none. Where no other class is left they are taught all the same.

    Returns:
        (N,), int64, nowhere equal to `targets`.
    """
    place = uniform(hashes, seed, f"random label {draw}" if draw else "random label")
    every = torch.arange(classes)
    labels = _others(targets, place, every)
    kept = every if gone is None else every[~torch.isin(every, gone.cpu())]
    # Of a class that alone is left there is no other one to teach.
    some = len(kept) - torch.isin(targets, kept).long() > 0
    if len(kept) < classes:
        labels[some] = _others(targets[some], place[some], kept)
    return labels


def _others(targets: Tensor, place: Tensor, allowed: Tensor) -> Tensor:
    """By a place in 0 ... 1, one of the allowed classes, (M,), sorted, from the one behind the target on, never the target."""
    counts = len(allowed) - torch.isin(targets, allowed).long()
    behind = torch.searchsorted(allowed, targets.contiguous(), right=True)
    found: Tensor = allowed[(behind + (place * counts).long()) % len(allowed)]
    return found


class RandomLabel(AlternatingStage):
    """Random labels (Graves, Nagisetty and Ganesh 2021, AAAI; RL in Fan et al. 2024, ICLR): D_f with wrong labels, then D_r.

    Each forgotten sample has one wrong label, of a class that is not forgotten as a whole. Each epoch is a pass over the
    forgotten and one over the retained samples, with one optimiser. Runs in train mode, as published: BatchNorm sees forgotten
    samples alone in the first pass.

    Args:
        redraw: Whether every round draws them anew, so that no wrong answer is learnt by heart; False: once (Graves et al.).
        **kwargs: See `AlternatingStage`.
    """

    _labels: Tensor

    def __init__(self, redraw: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.redraw = redraw

    def on_train_epoch_start(self) -> None:
        """Draw the labels, for the whole training set: a table that is asked by sample index."""
        if self.current_epoch > 0 and not self.redraw:
            return
        samples, draw = self.data.samples, self.current_epoch if self.redraw else 0
        labels = (samples.targets, samples.hashes, self.num_classes, run_seed(), draw, self.data.gone_classes)
        self._labels = wrong_labels(*labels).to(self.device)

    def forget_objective(self, batch: dict[str, Batch]) -> Tensor:
        """See `AlternatingStage.forget_objective`: mean cross-entropy with the wrong labels."""
        forget = batch["forget"]
        logits = self.classifier(forget.input)
        return self.mean(F.cross_entropy(logits, self._labels[forget.index], reduction="none"), forget)
