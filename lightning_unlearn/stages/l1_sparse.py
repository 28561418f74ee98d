"""Fine-tune towards a sparse network."""

from typing import Literal

from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.masks import l1_of_scores
from lightning_unlearn.stages.fine_tune import FineTune

__all__ = ["Course", "L1Sparse", "penalty_of_epoch"]

Course = Literal["constant", "growing", "decaying"]


def penalty_of_epoch(penalty: float, course: Course, epoch: int, epochs: int, free_epochs: int) -> float:
    """The weight of the L1 norm in an epoch, gamma_t, with gamma its highest value.

    For e = 0 ... E - e0 - 1: constant gamma; decaying gamma * (1 - e / (E - e0)), the paper's best; growing
    gamma * (e + 1) / (E - e0), the same values in reverse order. 0 in the last e0 epochs.

    Args:
        penalty: gamma, 0 or more.
        course: See above.
        epoch: e, from 0.
        epochs: E, at least 1.
        free_epochs: e0, below E.

    Returns:
        gamma_t.
    """
    length = epochs - free_epochs
    if epoch >= length:
        return 0.0
    shares: dict[Course, float] = {"constant": 1.0, "growing": (epoch + 1) / length, "decaying": 1 - epoch / length}
    return penalty * shares[course]


class L1Sparse(FineTune):
    """Fine-tuning on the retained samples with an L1 norm that makes the network sparse (Jia et al. 2023, NeurIPS).

    Loss: mean cross-entropy + gamma_t * ||theta||_1 over all trained parameters, BatchNorm and biases included. Runs in train
    mode.

    Args:
        penalty: gamma; 1e-4 to 5e-4 in the paper.
        course: How gamma_t goes over the epochs, see `penalty_of_epoch`.
        free_epochs: The last so many epochs have no penalty (e0).
        max_epochs: Epochs over the retained samples; 10 in the paper.
        **kwargs: See `CachedStage`.
    """

    def __init__(
        self,
        penalty: float = 5e-4,
        course: Course = "decaying",
        free_epochs: int = 0,
        max_epochs: int = 10,
        **kwargs: object,
    ) -> None:
        if penalty <= 0 or not 0 <= free_epochs < max_epochs:
            raise ChainError(
                f"L1Sparse: penalty is {penalty}, and {free_epochs} of {max_epochs} epochs are free of it; "
                "needed: above 0, and at least one epoch that is not."
            )
        super().__init__(max_epochs=max_epochs, **kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.penalty = penalty
        self.course: Course = course
        self.free_epochs = free_epochs

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy, plus the penalty of the epoch.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        gamma = penalty_of_epoch(self.penalty, self.course, self.current_epoch, self.max_epochs, self.free_epochs)
        return super().objective(batch) + gamma * l1_of_scores(p for p in self.parameters() if p.requires_grad)
