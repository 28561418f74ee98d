"""Disobey the original on what is forgotten, and obey it on what is retained."""

import math

import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.distillation import distillation_loss
from lightning_unlearn.stages.alternating import AlternatingStage

__all__ = ["Scrub"]


class Scrub(AlternatingStage):
    """SCRUB (Kurmanji et al. 2023, NeurIPS), bounded; its rewinding is `SelectByUnseen`, as in `scrub_rewind`.

    The first rounds have a pass that maximises the divergence from the original on the forgotten samples; every round has one
    over the retained samples that minimises gamma CE + alpha T^2 KL(original || p). One optimiser steps in both. Runs in train
    mode, as published: BatchNorm sees forgotten samples alone in the first pass. Without BatchNorm or Dropout that pass begins
    where the divergence has no gradient, and is lost; Adam would take steps along what rounding leaves.

    Args:
        temperature: T of all divergences; 4 is published for CIFAR, 2 for small sets.
        retain_weight: gamma; 0.99 is published for CIFAR.
        distil_weight: alpha; 0.001 is published for CIFAR, 0.5 beside gamma = 1 for small sets.
        ceiling: Divergence T^2 KL above which a forgotten sample is left alone, our own bound; None: T^2 log K, which an
            original that is sure of itself has to an answer at chance.
        **kwargs: See `AlternatingStage`.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        retain_weight: float = 0.99,
        distil_weight: float = 0.001,
        ceiling: float | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not (temperature > 0 and retain_weight >= 0 and distil_weight >= 0):
            raise ChainError(
                f"Scrub: temperature is {temperature}, retain_weight {retain_weight} and distil_weight {distil_weight}; "
                "needed: a temperature above 0, and weights of 0 or more."
            )
        self.temperature = temperature
        self.retain_weight = retain_weight
        self.distil_weight = distil_weight
        self.ceiling = ceiling

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; a copy of the network becomes the teacher."""
        self.teacher = Teacher(classifier, artifacts)
        super().bind(classifier, artifacts)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: the teacher."""
        return [self.teacher]

    def forget_objective(self, batch: dict[str, Batch]) -> Tensor:
        """See `AlternatingStage.forget_objective`: the negative divergence, no sample beyond the ceiling."""
        forget = batch["forget"]
        ceiling = self.temperature**2 * math.log(self.num_classes) if self.ceiling is None else self.ceiling
        return -self.mean(self._divergence(self.classifier(forget.input), forget).clamp(max=ceiling), forget)

    def retain_objective(self, batch: Batch) -> Tensor:
        """See `AlternatingStage.retain_objective`: cross-entropy and divergence, weighted."""
        logits = self.classifier(batch.input)
        losses = F.cross_entropy(logits, batch.target, reduction="none")
        return self.mean(self.retain_weight * losses + self.distil_weight * self._divergence(logits, batch), batch)

    def _divergence(self, logits: Tensor, batch: Batch) -> Tensor:
        return distillation_loss(logits, self.teacher.logits(batch), self.temperature)
