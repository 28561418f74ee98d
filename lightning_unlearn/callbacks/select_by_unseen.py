"""Choose the epoch after which forgotten samples look most like unseen ones."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_unlearn.callbacks.looking import answers, check_budget, data_of, retain_accuracy, weights_of
from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.metrics.unseen_match import Statistic, distance_to_unseen, within_budget
from lightning_unlearn.outputs import PartOutputs

__all__ = ["SelectByUnseen"]

log = logging.getLogger(__name__)


@dataclass
class _Epoch:
    """A network after an epoch.

    Attributes:
        number: From 0; -1 before the first step.
        weights: Of the network, on the CPU.
        retain: Accuracy on retained samples, percent.
        forget: Answers on the forgotten samples; None where they are not finite.
        unseen: The same on unseen samples.
    """

    number: int
    weights: dict[str, Tensor]
    retain: float
    forget: PartOutputs | None = None
    unseen: PartOutputs | None = None


class SelectByUnseen(Callback):
    """At the end of a stage goes back to the epoch whose answers to forgotten samples are nearest to those to unseen ones.

    Compared with unseen samples of the same classes, under a budget on retain accuracy: neither test samples nor a retrained
    reference is looked at, which whoever unlearns does not have. The accuracy lost is that against the best epoch, or the
    start; where no epoch is within the budget, the weights before the first step come back.

    SCRUB's rewinding (Kurmanji et al. 2023, NeurIPS) is `statistic: error`, `unseen_at: last` and a budget of 100 points.

    Every epoch's weights are kept in the computer's memory until the stage ends.

    Args:
        statistic: `margins`: the best threshold on the margin must not tell the two apart (`margin_advantage`); `error`: their
            errors must be alike.
        unseen_at: `each`: the unseen samples are those of the same epoch's network; `last`: of the last epoch's.
        max_retain_drop: Points of retain accuracy that may be lost, in 0 ... 100.
        samples: Retained samples that are looked at.

    Runs on `on_fit_start`, `on_train_epoch_end` and `on_train_end`.
    """

    compares_with_unseen = True

    def __init__(
        self,
        statistic: Statistic = "margins",
        unseen_at: Literal["each", "last"] = "each",
        max_retain_drop: float = 5.0,
        samples: int = 500,
    ) -> None:
        check_budget("SelectByUnseen", max_retain_drop, samples)
        self.statistic: Statistic = statistic
        self.unseen_at = unseen_at
        self.max_retain_drop = max_retain_drop
        self.samples = samples
        self.chosen = -1
        self.distances: list[float] = []
        self._epochs: list[_Epoch] = []

    def __repr__(self) -> str:
        settings = (self.statistic, self.unseen_at, self.max_retain_drop, self.samples)
        return f"{type(self).__qualname__}{settings}"

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """The epoch that was chosen, counted from 1 (0: the weights before the first step), and how near it was."""
        if not self.distances:
            return {}
        found = {"epoch": self.chosen + 1.0, "of": float(len(self.distances))}
        if self.chosen >= 0:
            found["distance"] = self.distances[self.chosen]
        return {"selected": found}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the start.

        Raises:
            ChainError: There are no unseen samples of any forgotten class.
        """
        data = data_of(trainer)
        parts = (data.part(name) for name in ("forget", "unseen"))
        forgotten, unseen = (set(samples.targets[index].tolist()) for samples, index in parts)
        if not forgotten & unseen:
            raise ChainError(
                "SelectByUnseen: there are no unseen samples of the forgotten classes to compare with. "
                f"{data.unseen_remedy} Or leave the callback out."
            )
        start = {name: value.cpu() for name, value in weights_of(pl_module).items()}
        self._epochs = [_Epoch(-1, start, retain_accuracy(trainer, pl_module, self.samples))]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights and what they answer."""
        weights = {name: value.cpu() for name, value in weights_of(pl_module).items()}
        retain = retain_accuracy(trainer, pl_module, self.samples)
        found = (self._outputs(trainer, pl_module, name) for name in ("forget", "unseen"))
        self._epochs.append(_Epoch(trainer.current_epoch, weights, retain, *found))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the chosen epoch."""
        start, *epochs = self._epochs
        self._epochs = []
        fits = within_budget([start.retain, *(epoch.retain for epoch in epochs)], self.max_retain_drop)[1:]
        self.distances = [self._distance(epoch, epochs[-1]) for epoch in epochs]
        allowed = [i for i in range(len(epochs)) if fits[i] and self.distances[i] <= 1]
        best = min(allowed, key=self.distances.__getitem__, default=-1)
        self.chosen = best if best < 0 else epochs[best].number
        if best < 0:
            log.warning("SelectByUnseen: every epoch lost more than %.1f points of retain accuracy; the weights before the "
                        "first step come back.", self.max_retain_drop)  # fmt: skip
        else:
            log.info("SelectByUnseen: epoch %d of %d, distance to unseen samples %.3f (%s), retain accuracy %.1f.",
                     best + 1, len(epochs), self.distances[best], self.statistic, epochs[best].retain)  # fmt: skip
        cast(EditedStage, pl_module).classifier.load_state_dict((start if best < 0 else epochs[best]).weights)

    def _distance(self, epoch: _Epoch, last: _Epoch) -> float:
        """In 0 ... 1; above 1 where there is none."""
        unseen = (last if self.unseen_at == "last" else epoch).unseen
        found = None if epoch.forget is None or unseen is None else distance_to_unseen(epoch.forget, unseen, self.statistic)
        return 2.0 if found is None else found

    @staticmethod
    def _outputs(trainer: Trainer, stage: LightningModule, part: Part) -> PartOutputs | None:
        logits, targets = answers(trainer, stage, part)
        _, index = data_of(trainer).part(part)
        return PartOutputs(logits.float().cpu(), targets.cpu(), index) if bool(logits.isfinite().all()) else None
