"""A stage that forgets and repairs in turn."""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.views import View
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.schedule import Schedule, build_schedule
from lightning_unlearn.stages.stepping import SteppingStage

__all__ = ["AlternatingStage"]


class AlternatingStage(SteppingStage):
    """Rounds of two passes: over the forgotten samples, then over the retained ones; one fit, and an epoch is a round.

    A subclass overrides `forget_objective` for the first pass, and `retain_objective` where the second one minimises
    something else than cross-entropy. In the view `pairs_then_retain` (set by a subclass) the first pass has a retained batch
    beside each forgotten one.

    Momentum and schedules live through all rounds, with one optimiser for both passes or with one for each. The stage
    takes its steps by itself, since Lightning alternates between no optimisers.

    Args:
        rounds: Number of rounds.
        forget_rounds: The first so many rounds have a pass over the forgotten samples; None: all.
        forget_optimizer: Makes the optimiser of that pass; None: `optimizer` steps in both.
        forget_schedule: Course of its learning rate over its own steps.
        forget_floor: Learning rate at which a cosine of that pass ends.
        **kwargs: See `UnlearningStage`; `schedule` is over the steps that `optimizer` takes.
    """

    view: View = "forget_then_retain"

    def __init__(
        self,
        rounds: int = 1,
        forget_rounds: int | None = None,
        forget_optimizer: OptimizerCallable | None = None,
        forget_schedule: Schedule = "constant",
        forget_floor: float = 0.0,
        **kwargs: object,
    ) -> None:
        first = rounds if forget_rounds is None else forget_rounds
        if rounds < 1 or not 0 <= first <= rounds:
            raise ChainError(
                f"{type(self).__name__}: rounds is {rounds} and forget_rounds {forget_rounds}; needed: at least one round, "
                "and 0 to as many with a pass over the forgotten samples."
            )
        if forget_optimizer is None and (forget_schedule != "constant" or forget_floor):
            raise ChainError(
                f"{type(self).__name__}: forget_schedule is {forget_schedule} and forget_floor {forget_floor} without a "
                "forget_optimizer; needed: one for the first pass, or `schedule`, the course of the one that steps in both."
            )
        super().__init__(max_epochs=rounds, max_steps=None, **kwargs)
        self.forget_rounds = first
        self.forget_optimizer = forget_optimizer
        self.forget_schedule: Schedule = forget_schedule
        self.forget_floor = forget_floor

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the retained pass, and that of the forgotten one where it is another, each with its schedule.

        Returns:
            Lightning's configuration.
        """
        plan = self.data.plan
        forget = self.forget_rounds * plan.forget_steps
        retain = self.max_epochs * (len(plan) - plan.forget_steps)
        trained = [p for p in self.parameters() if p.requires_grad]
        if self.forget_optimizer is None:
            made = [(self.optimizer, self.schedule, forget + retain, 0.0)]
        else:
            own = (self.forget_optimizer, self.forget_schedule, forget, self.forget_floor)
            made = [(self.optimizer, self.schedule, retain, 0.0), own]
        optimizers = [self.make_optimizer(factory, trained) for factory, *_ in made]
        courses = zip(optimizers, made, strict=True)
        schedulers = [build_schedule(o, schedule, steps, floor) for o, (_, schedule, steps, floor) in courses]
        return optimizers, [scheduler for scheduler in schedulers if scheduler is not None]

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """The loss of the pass that a batch belongs to.

        Args:
            batch: With `forget` in it during the first pass, with `retain` alone during the second.

        Returns:
            A scalar.
        """
        assert isinstance(batch, dict)
        return self.forget_objective(batch) if "forget" in batch else self.retain_objective(batch["retain"])

    def forget_objective(self, batch: dict[str, Batch]) -> Tensor:
        """The loss of a batch of the first pass; minimised.

        Args:
            batch: With `forget`, and with `retain` beside it in the view `pairs_then_retain`.

        Returns:
            A scalar; take means with `mean`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `forget_objective`, or `objective`.")

    def retain_objective(self, batch: Batch) -> Tensor:
        """The loss of a batch of the second pass: mean cross-entropy.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        return self.mean(F.cross_entropy(self.classifier(batch.input), batch.target, reduction="none"), batch)

    def training_step(self, batch: Batch | dict[str, Batch], batch_idx: int) -> Tensor | None:
        """One step of the objective, by the optimiser of the pass.

        Args:
            batch: See the class.
            batch_idx: Its number in the round.

        Returns:
            Nothing: the step is taken.
        """
        forgets = "forget" in batch
        if forgets and self.current_epoch >= self.forget_rounds:
            return None
        made = self.optimizers()
        optimizers: list[LightningOptimizer] = made if isinstance(made, list) else [made]
        optimizer = optimizers[-1 if forgets else 0]
        loss = self.checked_loss(batch, batch_idx, "forget_loss" if forgets else "retain_loss")
        self.step(loss, optimizer)
        return None
