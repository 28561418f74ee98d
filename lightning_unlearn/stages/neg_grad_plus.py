"""Descend on what is retained and ascend on what is forgotten, at once."""

import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch, halves
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.gradient_ascent import GradientAscent

__all__ = ["NegGradPlus"]


class NegGradPlus(GradientAscent):
    """NegGrad+ (Kurmanji et al. 2023, NeurIPS): a CE(retained) - (1 - a) CE(forgotten), bounded.

    The ceiling is on each forgotten sample. One forward pass over both parts, in train mode, so that BatchNorm sees one
    distribution. An epoch is one over the retained samples; passes over the forgotten ones follow each other beside it.

    Args:
        retain_weight: a, in 0 ... 1; 0.95 as published.
        **kwargs: See `GradientAscent`.
    """

    view = "both"
    train_mode = True

    def __init__(self, retain_weight: float = 0.95, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not 0 <= retain_weight <= 1:
            raise ChainError(f"NegGradPlus: retain_weight is {retain_weight}; needed: 0 to 1.")
        self.retain_weight = retain_weight

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: weighted difference of mean cross-entropies."""
        assert isinstance(batch, dict)
        forget, retain = halves(logits, batch)
        kept = F.cross_entropy(retain, batch["retain"].target, reduction="none")
        ascent = self.mean(self.bounded(forget, batch["forget"]), batch["forget"])
        return self.retain_weight * self.mean(kept, batch["retain"]) - (1 - self.retain_weight) * ascent
