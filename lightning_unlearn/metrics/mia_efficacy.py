"""MIA-efficacy as a metric that can be logged while a model unlearns."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_unlearn.attacks.threshold import mia_efficacy
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.metrics.per_sample import each_once, joined

__all__ = ["MiaEfficacy"]

Part = Literal["forget", "retain", "test"]
_PARTS: tuple[Part, ...] = ("forget", "retain", "test")


class MiaEfficacy(Metric):
    """Share of D_f that the best threshold between D_r and the test set calls non-members, in percent points.

    Neither 0 nor 100 is the aim but the reference's value, so `higher_is_better` is None. The threshold is
    found when all samples are there, each once: the value of two ranks is that of one.

    Args:
        seed: Seed of the class-balanced draw of members.
    """

    is_differentiable: bool | None = False
    higher_is_better: bool | None = None
    full_state_update: bool | None = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.set_dtype(torch.float64)
        for part in _PARTS:
            for state in ("margin", "index", "target"):
                self.add_state(f"{part}_{state}", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, targets: Tensor, index: Tensor, part: Part) -> None:
        """Add a batch of one part.

        Args:
            logits: (B, K), any floating type.
            targets: Labels, (B,), int64.
            index: Sample indices, (B,), int64.
            part: Which part the batch is of.

        Raises:
            ValueError: There is no such part.
        """
        if part not in _PARTS:
            raise ValueError(f"Part {part!r}; needed: one of {', '.join(_PARTS)}.")
        getattr(self, f"{part}_margin").append(margin(logits.detach(), targets))
        getattr(self, f"{part}_index").append(index.double())
        getattr(self, f"{part}_target").append(targets.double())

    def compute(self) -> Tensor:
        """The share over distinct samples; test samples of classes that are wholly forgotten are left out.

        Returns:
            A scalar, float64, in 0 ... 100; NaN where a part has no samples.
        """
        (_, forget, forget_y), (index, retain, retain_y), (_, test, test_y) = (
            each_once(*(joined(getattr(self, f"{part}_{state}")) for state in ("index", "margin", "target"))) for part in _PARTS
        )
        gone = torch.isin(test_y, forget_y) & ~torch.isin(test_y, retain_y)
        test = test[~gone]
        if min(len(forget), len(retain), len(test)) == 0:
            return forget.new_tensor(float("nan"))
        share = mia_efficacy(
            forget.cpu(),
            retain.cpu(),
            test.cpu(),
            retain_y.long().cpu(),
            seed=self.seed,
            retain_index=index.long().cpu(),
        )
        return forget.new_tensor(100 * share)
