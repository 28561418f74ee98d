"""Teach the network what a model that never saw the forgotten samples would say."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch, halves
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import log_odds, with_log_odds
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.imitation.aim import Aim
from lightning_unlearn.imitation.checks import check_teaching
from lightning_unlearn.stages.cached import CachedStage

__all__ = ["ImitateUnseen"]

# Log-odds; so that the few samples far from their targets do not outweigh the others.
_LINEAR_FROM = 4.0


class ImitateUnseen(CachedStage):
    """The last step of imitating the unseen (this project's own method): teach the targets that `EstimateUnseen` left.

    One forward pass over forgotten and retained samples together, so that BatchNorm sees one distribution; the loss is the
    mean over all samples of KL(target || p) for the forgotten and cross-entropy for the retained ones. The trained part runs
    in train mode, as the original was trained.

    KL does not see how unlikely an unlikely label is, and an attacker does: `margin_weight` adds Huber's loss between the
    log-odds of the label and those of its target, linear from 4 on.

    Args:
        divergence_weight: Weight of KL, 0 or more.
        margin_weight: Weight of the loss on log-odds, 0 or more; not for samples of classes of which none is retained, whose
            labels have no odds.
        passes: Passes over the forgotten samples; the number of steps follows from it, so it grows with their number.
        class_passes: The same for a request of whole classes, whose targets are learnt sooner.
        max_steps: Number of steps in place of `passes`.
        min_forget_batches: Of a request too small to fill so many batches, that many or a few less are made: with all of it in
            every batch, the few steps would leave retained samples behind.
        correction: After each pass over the forgotten samples but the first third of them, their targets move against this part
            of the mean miss, 0 ... 1; see `Aim`. 0: they stay.
        **kwargs: See `CachedStage`.
    """

    view = "both"
    steps_each_batch = True
    requires: tuple[str, ...] = ("targets",)
    note = (
        "The distribution of confidence on the forgotten samples is matched to that of unseen ones on purpose, so forget "
        "accuracy, MIA-efficacy, the average gap and forgotten-against-unseen say little here. What tells are the distance "
        "to retrained references (JS, relearn gap), where there are some, and whether relearning brings the memory back."
    )

    def __init__(
        self,
        passes: int = 30,
        class_passes: int = 12,
        max_steps: int | None = None,
        divergence_weight: float = 1.0,
        margin_weight: float = 0.0,
        min_forget_batches: int = 1,
        correction: float = 0.0,
        **kwargs: object,
    ) -> None:
        counts = {"passes": passes, "class_passes": class_passes, "min_forget_batches": min_forget_batches}
        check_teaching(counts, divergence_weight, margin_weight, correction)
        if kwargs.get("max_epochs", 1) != 1:
            raise ChainError(
                f"ImitateUnseen: max_epochs is {kwargs['max_epochs']}; needed: passes, or max_steps, in its place."
            )
        super().__init__(max_steps=max_steps, **kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.passes = passes
        self.class_passes = class_passes
        self.min_forget_batches = min_forget_batches
        self.divergence_weight = divergence_weight
        self.margin_weight = margin_weight
        self.correction = correction
        self._aim: Aim | None = None
        self._targets = torch.empty(0)
        self._log_odds = torch.empty(0)
        self._has_odds = torch.empty(0, dtype=torch.bool)
        self._position = torch.empty(0)

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.length`: as many steps as the passes over the forgotten samples take."""
        size = self.sizes(data)[1]
        return -1, self.max_steps or math.ceil(self.passes_for(data) * len(data.part("forget")[1]) / size)

    def sizes(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.sizes`: forget batches are smaller where there would be less than `min_forget_batches`."""
        (batch, forget), n = super().sizes(data), len(data.part("forget")[1])
        # One for each rank at least.
        return batch, min(forget, max(math.ceil(n / self.min_forget_batches), min(n, data.ranks[1])))

    def passes_for(self, data: UnlearningDataModule) -> int:
        """Passes over the forgotten samples.

        Args:
            data: The data, split.

        Returns:
            `class_passes` where all of them are of classes of which no sample is retained, else `passes`.
        """
        return self.class_passes if bool(self.artifacts["targets"]["class_gone"].all()) else self.passes

    def on_fit_start(self) -> None:
        """Put the targets on the device."""
        super().on_fit_start()
        targets = self.artifacts["targets"]
        probabilities, labels = targets["probabilities"].double(), self.data.samples.targets[targets["index"]]
        self._targets = probabilities.to(self.device)
        self._log_odds = log_odds(probabilities, labels).to(self.device)
        self._has_odds = (~targets["class_gone"]).to(self.device)
        position = torch.zeros(len(self.data.samples), dtype=torch.int64)
        position[targets["index"]] = torch.arange(len(targets["index"]))
        self._position = position.to(self.device)
        steps, size = self.length(self.data)[1], self.sizes(self.data)[1]
        passes = math.ceil(steps * size / len(targets["index"]))
        self._aim = Aim(self.correction, self.trainer, math.ceil(passes / 3)) if self.correction > 0 else None

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """By how many log-odds targets were lowered in the end, where they move."""
        return {} if self._aim is None else {"correction": {"lowered by": float(self._aim.lowered)}}

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: mean over all samples of KL to the target (forgotten) and cross-entropy (retained)."""
        assert isinstance(batch, dict)
        forget, retain = batch["forget"], batch["retain"]
        # Float32 at least, whatever the precision of the network: targets are not rounded.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        forget_logits, retain_logits = halves(logits, batch)
        forget_logits = forget_logits.to(dtype)
        position = self._position[forget.index]
        targets, wanted, has_odds = self._targets[position], self._log_odds[position], self._has_odds[position]
        found = margin(forget_logits, forget.target)
        if self._aim is not None:
            self._aim.see((found - wanted)[has_odds], forget.epoch)
            wanted = wanted - self._aim.lowered
            targets = torch.where(has_odds[:, None], with_log_odds(targets, forget.target, wanted), targets)
        kl = F.kl_div(forget_logits.log_softmax(1), targets.to(dtype), reduction="none").sum(1)
        divergence = self.divergence_weight * kl
        if self.margin_weight > 0:
            miss = F.huber_loss(found, wanted, reduction="none", delta=_LINEAR_FROM)
            divergence = divergence + self.margin_weight * torch.where(has_odds, miss, 0.0).to(dtype)
        loss = F.cross_entropy(retain_logits, retain.target, reduction="none")
        return self.mean_of_both(divergence, loss, batch)
