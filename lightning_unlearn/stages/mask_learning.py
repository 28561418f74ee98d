"""Learn which weights the forgotten samples use."""

from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.functional.mask_scores import MaskScores
from lightning_unlearn.functional.masks import masked_call, share_on
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.cached import CachedStage

__all__ = ["MaskLearning"]


def _adam(params: Iterable[nn.Parameter]) -> Optimizer:
    """Adam with learning rate 1e-3: Piggyback's 1e-4 would take 50 steps before any bit can turn off."""
    return Adam(params, lr=1e-3)


class MaskLearning(CachedStage):
    """Learns a binary mask over weights that keeps the forgotten samples classified correctly with as few weights as it can.

    One real score per weight; the forward pass uses `W * 1[score > threshold]`, the gradient goes straight through to the
    score (Piggyback: Mallya et al. 2018, ECCV), and an L1 penalty turns off what the forgotten samples do not need: the mask of
    selective destructive forgetting (Murakami, Shibata and Yamauchi). The weights are frozen and the network runs in eval
    mode, because the mask must describe the network as it answers.

    Artifacts: `mask`, one boolean tensor per masked weight, by parameter name.

    Args:
        penalty: Weight of the L1 norm of the scores (lambda).
        threshold: Score above which a weight is on (tau; Piggyback's 5e-3).
        initial: First score of every weight (Piggyback's 1e-2).
        exclusive: Learn a second mask on as many random retained samples, and keep what is on for the forgotten ones alone.
        max_epochs: Epochs over the forgotten samples.
        optimizer: Makes the optimiser of the scores.
        parameters: Where masks are learnt: convolutions' and linear layers' weights among these; None: the last stage.
        **kwargs: See `CachedStage`.
    """

    provides = ("mask",)
    train_mode = False

    def __init__(
        self,
        penalty: float = 1e-5,
        threshold: float = 5e-3,
        initial: float = 1e-2,
        exclusive: bool = False,
        max_epochs: int = 20,
        optimizer: OptimizerCallable = _adam,
        parameters: ParameterSelector | None = None,
        **kwargs: object,
    ) -> None:
        if initial <= threshold:
            raise ChainError(f"MaskLearning: initial is {initial} and threshold {threshold}; needed: initial above it.")
        if max_epochs < 1:
            raise ChainError(f"MaskLearning: max_epochs is {max_epochs}; needed: at least 1, or no mask is learnt.")
        parameters = parameters or ParameterSelector(parts=["last_stage"])
        super().__init__(max_epochs=max_epochs, optimizer=optimizer, parameters=parameters, **kwargs)  # type: ignore[arg-type]  # typed there
        self.penalty = penalty
        self.threshold = threshold
        self.initial = initial
        self.exclusive = exclusive
        self.view = "both_equal" if exclusive else "forget"
        self._course: dict[int, Tensor] = {}
        self._active: Literal["forget", "retain"] = "forget"

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; the selected weights get scores, and nothing else is trained."""
        super().bind(classifier, artifacts)
        self._course = {}
        classifier.requires_grad_(False)
        weights = {name: classifier.get_parameter(name) for name in self.selected}
        groups = ("forget", "retain")[: 1 + self.exclusive]
        self.scores = nn.ModuleDict({group: MaskScores(weights, self.initial) for group in groups})

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: weights of convolutions and linear layers; see `layer_weights`."""
        return layer_weights(classifier, super().choose(classifier))

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.objective`: cross-entropy on the correct labels, plus the L1 penalty."""
        if isinstance(batch, Batch):
            return F.cross_entropy(self.logits(batch), batch.target) + self.penalty * self._scores("forget").l1()
        loss = torch.zeros((), device=self.device)
        for group in ("forget", "retain"):
            self._active = group
            values = F.cross_entropy(self.logits(batch[group]), batch[group].target, reduction="none")
            loss = loss + self.mean(values, batch[group]) + self.penalty * self._scores(group).l1()
        return loss

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Logits with masked weights; see `CachedStage.run`."""
        return masked_call(module, self._scores(self._active).by_name(), self.threshold, x)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Record the share of ones in at most 50 steps; none waits for the device: it is read in the end."""
        step = self.trainer.global_step - 1
        if step % -(-int(self.trainer.estimated_stepping_batches) // 50) == 0:
            self._course[step] = share_on(self._scores("forget").on(self.threshold).values())

    def on_train_end(self) -> None:
        """Leave the mask for later stages."""
        masks = self._scores("forget").on(self.threshold)
        if self.exclusive:
            masks = {name: masks[name] & ~mask for name, mask in self._scores("retain").on(self.threshold).items()}
        on = float(share_on(masks.values()))
        if not 0.01 <= on <= 0.99:
            one_class = on < 0.01 and not self.exclusive and len(self.data.forgotten_classes) == 1
            told = " A few weights may tell one class: without this stage NormDecay shrinks the whole last one." * one_class
            raise ChainError(
                f"MaskLearning: {on:.1%} of the mask is on after {self.trainer.global_step} steps; needed: 1 % to 99 %, or "
                f"it selects nothing. {'Lower' if on < 0.5 else 'Raise'} penalty ({self.penalty}) or max_epochs "
                f"({self.max_epochs}), in a copy of the method's file.{told}"
            )
        self._shares = {name: float(mask.float().mean()) for name, mask in masks.items()}
        self.artifacts["mask"] = masks

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of ones per layer, and over the steps."""
        return {"mask_on": self._shares, "mask_course": {str(step): float(on) for step, on in self._course.items()}}

    def cached_parts(self) -> dict[Part, Tensor]:
        """See `CachedStage.cached_parts`: of the retained samples as many as are forgotten."""
        parts = super().cached_parts()
        return {**parts, "retain": self.data.plan.equal_part()} if self.exclusive else parts

    def release(self) -> None:
        """See `UnlearningStage.release`."""
        super().release()
        del self.scores

    def _scores(self, group: str) -> MaskScores:
        return cast(MaskScores, self.scores[group])
