"""Learn from a teacher that knows nothing about what is forgotten."""

import math

from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.distillation import distillation_loss
from lightning_unlearn.random import drawn_for
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["BadTeacher"]


class BadTeacher(UnlearningStage):
    """Bad teaching (Chundawat et al. 2023, AAAI): match a random network on forgotten samples, the original on retained ones.

    The loss is the mean over all samples of a step of KL(teacher || p), with the teacher of the sample's part. One forward
    pass over both parts, in train mode, so that BatchNorm sees one distribution. The published loss is this one divided by
    the number of classes, which Adam's steps do not depend on.

    Args:
        retain_share: Share of an epoch over the retained samples, in 0 ... 1; 0.3 as published. Forgotten samples are passed
            over about once beside it, as published, unless `forget_batch_size` is given; more often where that would put less
            than one of them into a batch.
        **kwargs: See `UnlearningStage`; `max_epochs` counts these shares, `batch_size` the samples of both parts together.
    """

    view = "both"
    steps_each_batch = True

    def __init__(self, retain_share: float = 0.3, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not 0 < retain_share <= 1:
            raise ChainError(f"BadTeacher: retain_share is {retain_share}; needed: above 0 and at most 1.")
        self.retain_share = retain_share

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; copies of the network become the teachers."""
        with drawn_for("bad teacher"):
            ignorant = untrained_copy(classifier)
        self.bad = Teacher(ignorant, Artifacts(), "forget")
        # Below one epoch fewer logits are asked for than a table of all would hold.
        self.good = Teacher(classifier, artifacts, "retain", once=self.retain_share * self.max_epochs >= 1)
        super().bind(classifier, artifacts)

    def configure_callbacks(self) -> list[Callback]:
        """The chain: both teachers."""
        return [self.bad, self.good]

    def sizes(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.sizes`: the parts of a batch are as large as what is passed over of them."""
        size = super().sizes(data)[0]
        forget, retain = (len(data.part(part)[1]) for part in ("forget", "retain"))
        alike = round(size * forget / (forget + self.retain_share * retain))
        mine = self.forget_batch_size or max(min(forget, data.ranks[1]), min(size - 1, alike))
        return max(1, size - mine), mine

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.length`: the share of each epoch over the retained samples."""
        steps = math.ceil(self.retain_share * self.max_epochs * len(data.plan))
        return -1, min(steps, self.max_steps or steps)

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean divergence from the teacher of each sample.

        Args:
            batch: Forgotten and retained samples.

        Returns:
            A scalar.
        """
        assert isinstance(batch, dict)
        forget_logits, retain_logits = self.one_forward(batch)
        bad = distillation_loss(forget_logits, self.bad.logits(batch["forget"]))
        good = distillation_loss(retain_logits, self.good.logits(batch["retain"]))
        return self.mean_of_both(bad, good, batch)
