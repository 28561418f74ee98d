"""Fine-tune with rare classes counting more."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.fine_tune import FineTune

__all__ = ["ClassWeightedFineTune", "class_weights"]


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Weights count^-power, scaled so that their mean over samples is 1; 0 for classes without samples.

    Args:
        counts: Samples of each class, (K,), one at least.
        power: 0: all alike; 1: every class counts alike in sum.

    Returns:
        (K,), float32.
    """
    n = counts.double()
    weights = torch.where(n > 0, n.clamp(min=1) ** -power, 0.0)
    return (weights * n.sum() / (weights * n).sum()).float()


class ClassWeightedFineTune(FineTune):
    """Fine-tuning on the retained samples by a cross-entropy in which a sample counts count(its class)^-power.

    Used by the 3rd and the 4th place of the NeurIPS 2023 challenge (Triantafillou et al. 2024). With classes of equal size it
    is `FineTune`. Runs in train mode.

    Args:
        power: See above; 0.1 is that of the 4th place, 1 is usual.
        **kwargs: See `CachedStage`.
    """

    def __init__(self, power: float = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not power >= 0:
            raise ChainError(f"{type(self).__name__}: power is {power}; needed: 0 or more.")
        self.power = power
        self._weights = torch.empty(0)

    def on_fit_start(self) -> None:
        """Count the retained samples of each class."""
        super().on_fit_start()
        samples, index = self.data.part("retain")
        counts = samples.targets[index].bincount(minlength=self.num_classes)
        self._weights = class_weights(counts, self.power).to(self.device)

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`. A plain mean, so that ranks whose samples weigh differently add up."""
        assert isinstance(batch, Batch)
        return (self._weights[batch.target] * F.cross_entropy(logits, batch.target, reduction="none")).mean()
