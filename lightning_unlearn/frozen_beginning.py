"""What the frozen beginning of a network makes of samples: computed once, also over the stages of a chain."""

from typing import Protocol

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.sample_table import SampleTable
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.functional.cut import Cut, cut
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.weights.fingerprint import hash_of_weights
from lightning_unlearn.work import Work

__all__ = ["FrozenBeginning", "RunningStage", "before_last_stage"]


class RunningStage(Protocol):
    """What is looked at of a stage in its fit."""

    classifier: nn.Module
    artifacts: Artifacts
    trainer: Trainer
    work: Work

    @property
    def data(self) -> UnlearningDataModule:
        """The DataModule of the fit."""
        ...

    def example(self) -> Tensor:
        """One training image as the network gets it, (1, C, H, W)."""
        ...


class FrozenBeginning:
    """The features that cross a cut, by sample, in eval mode and of un-augmented images.

    Those of the training set are left to later stages whose beginning is the same, weights and all: none computes them again.

    Args:
        found: Where the network is cut; its beginning is not trained.
        stage: In its fit. What the beginning forwards, and each call of the end, counts as its work.
    """

    def __init__(self, found: Cut, stage: RunningStage) -> None:
        self._prefix, self._tail, self._data, self._trainer = found.prefix, found.tail, stage.data, stage.trainer
        known_by = f"{found.prefix.code}\n{hash_of_weights(found.prefix)}"
        self._table = stage.artifacts.features(known_by, len(stage.data.samples))
        self._others: dict[Part, SampleTable] = {}
        stage.work.watch(found.prefix, 1 - found.share)
        self.watched_tail = stage.work.watch(found.tail, found.share)

    def of(self, part: Part, index: Tensor | None = None) -> SampleTable:
        """The features of a part of the data; what is missing is computed.

        Args:
            part: The part.
            index: Samples of it, (N,), sorted; None: all.

        Returns:
            A table with rows for these samples, among others.
        """
        samples = self._data.part(part)[0]
        own = samples is self._data.samples
        table = self._table if own else self._others.setdefault(part, SampleTable(len(samples)))
        table.add(self._forward, self._data, part, self._trainer, index)
        return table

    def logits(self, part: Part, index: Tensor) -> Tensor:
        """What the network answers, by its end.

        Args:
            part: A part of the data.
            index: Samples of it, (N,), sorted.

        Returns:
            (N, K), float32, on the device.
        """
        table = self.of(part, index)
        loader = self._data.evaluation_loader(part, index)
        return collect(lambda batch: self._tail(table[batch.index]).float(), loader, index, self._trainer)

    def _forward(self, batch: Batch) -> Tensor:
        features: Tensor = self._prefix(batch.input)
        return features


def before_last_stage(stage: RunningStage) -> FrozenBeginning | None:
    """The network up to its last stage, as those who train the last stage and the head will find it.

    Args:
        stage: In its fit.

    Returns:
        The beginning; None where no single tensor leads from it to the last stage.
    """
    end = ParameterSelector(parts=["last_stage", "head"]).names(stage.classifier)
    found = cut(stage.classifier, end, stage.example())
    return None if found is None else FrozenBeginning(found, stage)
