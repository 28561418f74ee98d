"""Push forgotten samples away from retained ones, and repair, in turn."""

import torch
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import gather_rows
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.alternating import AlternatingStage

__all__ = ["ContrastiveRounds", "contrast"]


def contrast(forget: Tensor, retain: Tensor, temperature: float = 1.15) -> Tensor:
    """Contrastive loss of forgotten against retained samples: mean over j of -log softmax_j(f(x_f) . f(x_j) / t).

    It is smallest where a forgotten sample is equally near to all retained ones.

    Args:
        forget: Logits of forgotten samples, (F, K); gradients pass through it.
        retain: Logits of retained samples, (R, K).
        temperature: t > 0; 1.15 as published.

    Returns:
        (F,), at least log R.
    """
    return -(forget @ retain.T / temperature).log_softmax(1).mean(1)


class ContrastiveRounds(AlternatingStage):
    """The second stage of Fanchuan (NeurIPS 2023 challenge, 1st place): rounds of a contrastive pass and of repair.

    Each round is a pass over the forgotten samples beside retained batches, which ends with the shorter of the two, and then
    an epoch of cross-entropy on the retained samples. Runs in train mode, with one forward pass for the forgotten and one for
    the retained part of a pair, as published: BatchNorm sees each part alone. The retained part gets no gradient, and those of
    all ranks are gathered, since the loss couples all pairs of a batch.

    Args:
        temperature: t of `contrast`.
        **kwargs: See `AlternatingStage`.
    """

    view = "pairs_then_retain"

    def __init__(self, temperature: float = 1.15, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not temperature > 0:
            raise ChainError(f"{type(self).__name__}: temperature is {temperature}; needed: above 0.")
        self.temperature = temperature

    def forget_objective(self, batch: dict[str, Batch]) -> Tensor:
        """See `AlternatingStage.forget_objective`: mean of the contrastive loss over all pairs."""
        forget, retain = batch["forget"], batch["retain"]
        logits = self.classifier(forget.input)
        with torch.no_grad():
            others = gather_rows(self.classifier(retain.input), retain.total, self.trainer)
        return self.mean(contrast(logits, others, self.temperature), forget)
