"""What the frozen beginning of a network makes of samples: computed once, also over the stages of a chain."""

from typing import Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.sample_table import SampleTable
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.functional.cut import Cut
from lightning_unlearn.weights.fingerprint import hash_of_weights
from lightning_unlearn.work import Work

__all__ = ["FrozenBeginning", "RunningStage", "features_too_large"]

# Samples whose features go through the end at once.
_CHUNK = 512
# Bytes of features that are kept on each device, all ranks keep all of them. Twice that is needed while they are put together.
CACHE_LIMIT = 4 * 2**30


class RunningStage(Protocol):
    """What is asked of a stage in its fit; features are left in its artifacts."""

    classifier: nn.Module
    artifacts: Artifacts
    trainer: Trainer
    work: Work

    @property
    def data(self) -> UnlearningDataModule:
        """The DataModule of the fit."""
        ...

    def example_image(self) -> Tensor:
        """One training image as the network gets it, (1, C, H, W)."""
        ...


class FrozenBeginning:
    """The features that cross a cut, by sample; its beginning is in eval mode and not trained.

    Those of un-augmented training images are left to later stages whose beginning is the same, weights and all: none computes
    them again.

    Args:
        found: Where the network is cut.
        stage: In its fit. What the beginning forwards, and each call of the end, counts as its work.

    Attributes:
        watched_tail: Its `remove` ends the counting of calls of the end.
    """

    def __init__(self, found: Cut, stage: RunningStage) -> None:
        self._prefix, self._tail, self._data, self._trainer = found.prefix, found.tail, stage.data, stage.trainer
        known_by = f"{found.prefix}\n{[m.training for m in found.prefix.modules()]}\n{hash_of_weights(found.prefix)}"
        self._table = stage.artifacts.features(known_by, len(stage.data.samples))
        self._others: dict[Part | int, SampleTable] = {}
        stage.work.watch(found.prefix, 1 - found.share)
        self.watched_tail = stage.work.watch(found.tail, found.share)

    def of(self, part: Part, index: Tensor | None = None, epoch: int | None = None) -> SampleTable:
        """The features of a part of the data; what is missing is computed.

        Args:
            part: The part. Of unseen samples features are kept as long as this object; they are in a table of their own.
            index: Samples of it, (N,), sorted; None: all.
            epoch: The pass of a training as in which images of the training set are augmented, with a table of its own that is
                kept as long as this object; None: they are not augmented.

        Returns:
            A table with rows for these samples, among others.
        """
        table, own = self._table, part if part not in ("retain", "forget", "train") else epoch
        if own is not None:
            table = self._others.setdefault(own, SampleTable(len(self._data.part(part)[0])))
        table.add(self._forward, self._data, part, self._trainer, index, epoch)
        return table

    def logits(self, part: Part, index: Tensor) -> Tensor:
        """What the network answers, by its end.

        Args:
            part: A part of the data.
            index: Samples of it, (N,), sorted.

        Returns:
            (N, K), float32, on the device.
        """
        table, trainer = self.of(part, index), self._trainer
        index = index.to(table.rows.device)
        rows = torch.zeros(len(index), self._data.num_classes, device=index.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            # Every rank answers for some, and adds zeros for the others.
            for of in torch.split(torch.arange(len(index))[trainer.global_rank :: trainer.world_size], _CHUNK):
                rows[of] = self._tail(table[index[of]]).float()
        return sum_over_ranks(rows, trainer)

    def _forward(self, batch: Batch) -> Tensor:
        features: Tensor = self._prefix(batch.input)
        return features


def features_too_large(found: Cut, stage: RunningStage, samples: int) -> str | None:
    """Why the features of so many samples are not kept.

    Args:
        found: Where the network is cut.
        stage: In its fit.
        samples: How many.

    Returns:
        The end of a sentence; None where they may be kept.
    """
    with torch.no_grad(), stage.trainer.precision_plugin.forward_context():
        one: Tensor = found.prefix(stage.example_image())
    size = one.numel() * one.element_size() * samples
    if size <= CACHE_LIMIT:
        return None
    return f"they would take {size / 2**30:.1f} GiB of each device, and {CACHE_LIMIT / 2**30:.0f} are allowed"
