"""Find what forgotten samples are nearly taken for."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import collect
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.adversarial import nearest_adversarial
from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["AdversarialExamples"]


class AdversarialExamples(UnlearningStage):
    """The first half of AMUN (2025): of each forgotten sample a near adversarial example, with its wrong label.

    L2-PGD on the network as it is, which is not changed; see `nearest_adversarial`. Distances are those of pixels in 0 ... 1,
    before normalisation, so they mean the same for every data set; images are not augmented. In eval mode, without autocast.
    Classes of which no sample is retained are no wrong labels, unless fewer than two others are left.

    Artifacts: `adversarial`, with `index` (F,), `images` (F, C, H, W) with pixels in 0 ... 1, `labels` (F,), `epsilon` (F,)
    and `found` (F,), False where no attack changed the label.

    Args:
        epsilon: The first radius, doubled until the label changes; 0.04 as published.
        steps: Steps of each attack; 50 as published.
        step_share: Length of a step in radii; a tenth as published.
        batch_size: Samples attacked at once on one rank.
    """

    view = "none"
    provides = ("adversarial",)
    train_mode = False
    only_looks = True

    def __init__(self, epsilon: float = 0.04, steps: int = 50, step_share: float = 0.1, batch_size: int = 256) -> None:
        super().__init__(max_epochs=0, batch_size=batch_size)
        if not epsilon > 0 or steps < 1 or not step_share > 0:
            raise ChainError(
                f"AdversarialExamples: epsilon is {epsilon}, steps {steps} and step_share {step_share}; needed: above 0, at "
                "least 1, and above 0."
            )
        self.epsilon = epsilon
        self.steps = steps
        self.step_share = step_share
        # The backward pass goes to the images alone, which is one forward pass's cost and not two.
        self.work.backward_share = 0.5

    def on_fit_start(self) -> None:
        """Attack, and leave the artifact."""
        _, index = self.data.part("forget")
        loader = self.data.evaluation_loader("forget", index, self.batch_size)
        with differentiable_in(self.classifier, ()):
            rows = collect(self._attack, loader, index, self.trainer).cpu()
        shape = self.data.example(1).shape[1:]
        self.artifacts["adversarial"] = {
            "index": index,
            "images": rows[:, :-3].view(-1, *shape),
            "labels": rows[:, -3].long(),
            "epsilon": rows[:, -2],
            "found": rows[:, -1].bool(),
        }

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """How far the examples are, in pixels of 0 ... 1, and for how many there is one."""
        left = self.artifacts["adversarial"]
        epsilon, found = left["epsilon"], left["found"].float()
        return {"adversarial": {"found": float(found.mean()), "median epsilon": float(epsilon.median())}}

    def _attack(self, batch: Batch) -> Tensor:
        """One row per sample: the image's pixels, then label, radius, and whether it was found."""
        mean, std = (batch.input.new_tensor(v).view(1, -1, 1, 1) for v in (self.data.dataset.mean, self.data.dataset.std))
        device = batch.input.device.type
        gone = self.data.gone_classes
        with torch.autocast(device, enabled=False):
            found = nearest_adversarial(
                lambda pixels: self.classifier((pixels - mean) / std),
                (batch.input * std + mean).clamp(0, 1),
                batch.target,
                self.epsilon,
                self.steps,
                self.step_share,
                gone if len(gone) <= self.num_classes - 2 else None,
            )
        # In float32 whatever the images are: halves do not tell labels above 256 apart.
        columns = [c[:, None].float() for c in (found.labels, found.epsilon, found.found)]
        return torch.cat([found.images.flatten(1).float(), *columns], dim=1)
