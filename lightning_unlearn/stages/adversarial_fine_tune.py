"""Teach wrong labels near the forgotten samples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.loaders import BatchMaker
from lightning_unlearn.data.views import Piece
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["AdversarialFineTune"]


class AdversarialFineTune(UnlearningStage):
    """The second half of AMUN (2025): fine-tuning with the adversarial examples of `AdversarialExamples` and their labels.

    Every forgotten sample of a batch brings its example with it, augmented as itself, so an epoch is one over training data
    and examples together. Runs in train mode, as the original was trained; one forward pass, so that BatchNorm sees one
    distribution. The loss is the mean over samples and examples.

    Args:
        with_forgotten: Whether forgotten samples are trained on too, with their true labels, as published; False: the example
            stands in place of the sample, which the network never sees.
        with_retained: Whether retained samples are trained on.
        **kwargs: See `UnlearningStage`.
    """

    requires = ("adversarial",)
    note = "Forgotten samples were trained on with their true labels, beside neighbours with wrong ones, as published."

    def __init__(self, with_forgotten: bool = True, with_retained: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.with_forgotten = with_forgotten
        self.with_retained = with_retained
        self.view = "train" if with_retained else "forget"
        if not with_forgotten:
            self.note = ""
        self._position = self._pixels = self._labels = torch.empty(0)
        self._maker: BatchMaker | None = None

    def on_fit_start(self) -> None:
        """Put the examples on the device, in reach of sample indices."""
        left = self.artifacts["adversarial"]
        position = torch.full((len(self.data.samples),), -1, dtype=torch.int64)
        position[left["index"]] = torch.arange(len(left["index"]))
        self._position = position.to(self.device)
        self._pixels = (255 * left["images"]).to(self.device)
        self._labels = left["labels"].to(self.device)
        self._maker = self.data.evaluation_loader("forget").maker

    def on_fit_end(self) -> None:
        """Let go of the data."""
        self._maker = None
        self._position = self._pixels = self._labels = torch.empty(0)

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy over samples and examples.

        Args:
            batch: Forgotten samples, and retained ones among them.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        kept, examples = self._parts(batch)
        logits = self.classifier(torch.cat([kept.input, examples.input]))
        losses = F.cross_entropy(logits, torch.cat([kept.target, examples.target]), reduction="none")
        # A batch has more or fewer examples by chance: the sum over an epoch, by all ranks, is what becomes a mean.
        return losses.sum() / (len(batch.target) * self._rows_per_sample())

    def _parts(self, batch: Batch) -> tuple[Batch, Batch]:
        """The samples that are trained on, and the examples of those that are forgotten."""
        assert self._maker is not None
        position = self._position[batch.index]
        forgotten = (position >= 0).nonzero().squeeze(1)
        example, index = position[forgotten], batch.index[forgotten]
        # As the loader makes images: augmented before they are normalised, by the draw of the sample.
        made = self._maker.make(self._pixels[example], Piece(index, self.current_epoch, len(index)), augment=True)
        made = Batch(made.input.to(batch.input), self._labels[example], index)
        if self.with_forgotten:
            return batch, made
        kept = (position < 0).nonzero().squeeze(1)
        return Batch(batch.input[kept], batch.target[kept], batch.index[kept]), made

    def _rows_per_sample(self) -> float:
        """Samples and examples of an epoch, for each sample that is served."""
        forget = len(self.artifacts["adversarial"]["index"])
        retain = len(self.data.part("retain")[1]) if self.with_retained else 0
        return 1 + forget / (forget + retain) if self.with_forgotten else 1.0
