"""Make the network answer nothing at all about what is forgotten."""

import torch
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.functional.distillation import distillation_loss
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["KLToUniform"]


class KLToUniform(UnlearningStage):
    """KL(U || p) on the forgotten samples, U uniform over classes: the first stage of Fanchuan (NeurIPS 2023 challenge, 1st).

    Runs in train mode, as published: BatchNorm sees forgotten samples alone, and a stage that repairs has to follow. Bounded
    from below by zero, so no ceiling is needed; but a network that answers less about forgotten samples than about unseen
    ones gives them away.

    Args:
        **kwargs: See `UnlearningStage`.
    """

    view = "forget"

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: mean divergence of the answer from the uniform distribution."""
        return distillation_loss(logits, torch.zeros_like(logits)).mean()
