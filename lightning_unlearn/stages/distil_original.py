"""Train on what is retained, near the answers of the original."""

from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.distillation import distillation_loss
from lightning_unlearn.stages.fine_tune import FineTune

__all__ = ["DistilOriginal"]


class DistilOriginal(FineTune):
    """Fine-tuning with KL to the original on the retained samples: an idea of the NeurIPS 2023 challenge.

    The loss is CE + w KL(original || p) (Triantafillou et al. 2024). Runs in train mode, as the original was trained;
    neither the network nor its teacher sees forgotten samples. The teacher has the weights that `KeepWeights` left before the
    stage that made the network forget; without it, those that this stage begins with.

    Args:
        weight: w, 0 or more; 1 is our own choice.
        **kwargs: See `CachedStage`.
    """

    def __init__(self, weight: float = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not weight >= 0:
            raise ChainError(f"DistilOriginal: weight is {weight}; needed: 0 or more.")
        self.weight = weight

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; a copy of the network becomes the teacher."""
        self.teacher = Teacher(classifier, artifacts, "retain")
        super().bind(classifier, artifacts)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: the teacher."""
        return [self.teacher]

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy and weighted divergence from the original.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        logits = self.logits(batch)
        divergence = distillation_loss(logits, self.teacher.logits(batch)).mean()
        return self.loss_of(logits, batch) + self.weight * divergence
