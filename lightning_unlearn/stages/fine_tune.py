"""Train on what is retained."""

import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.views import View
from lightning_unlearn.stages.cached import CachedStage

__all__ = ["FineTune"]


class FineTune(CachedStage):
    """Fine-tuning on the retained samples (FT in Jia et al. 2023, NeurIPS; the last step of selective forgetting).

    Runs in train mode, as the original was trained; forgotten samples touch neither the loss nor BatchNorm. Alone it hardly
    forgets: it is the baseline that shows how little retraining for a while does.

    Args:
        **kwargs: See `CachedStage`.
    """

    view: View = "retain"
    prepares = True

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: mean cross-entropy."""
        assert isinstance(batch, Batch)
        return F.cross_entropy(logits, batch.target)
