"""A stage that takes the steps of its optimisers by itself."""

from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["SteppingStage"]


class SteppingStage(UnlearningStage):
    """For stages with several optimisers, among which Lightning does not choose; gradients are clipped as the Trainer says.

    A subclass overrides `training_step`, calls `step` in it, and returns None.

    Args:
        **kwargs: See `UnlearningStage`.
    """

    steps_each_batch = True

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.automatic_optimization = False
        self._clip: tuple[float | None, str | None] = (None, None)

    def attach(self, trainer: Trainer) -> None:
        """Take over the clipping of gradients, which Lightning refuses to do for stages that step by themselves."""
        self._clip = (trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        trainer.gradient_clip_val = None

    def step(self, loss: Tensor, optimizer: LightningOptimizer) -> None:
        """One step of one of the optimisers, and of the schedules that are its own.

        Args:
            loss: A scalar, with its graph.
            optimizer: One of `self.optimizers()`.
        """
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        for config in self.trainer.lr_scheduler_configs:
            if config.scheduler.optimizer is optimizer.optimizer:
                config.scheduler.step()  # type: ignore[call-arg]  # none of ours waits for a metric

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, here, where a scaler of mixed precision has already taken its scale from them."""
        value, algorithm = self._clip
        if value:
            self.clip_gradients(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
