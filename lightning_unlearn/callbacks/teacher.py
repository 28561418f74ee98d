"""The frozen original, and what it answers."""

import copy
from typing import Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.sample_table import SampleTable
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.work import Work

__all__ = ["KeepOriginal", "Teacher"]


class KeepOriginal(WeightEdit):
    """Leaves the weights as they are now as the artifact `original`, for a `Teacher` in a later stage; edits nothing.

    Runs on `on_fit_start`.
    """

    def edit(self, stage: EditedStage) -> None:
        """Leave the artifact."""
        stage.artifacts["original"] = {name: value.clone() for name, value in stage.classifier.state_dict().items()}


class _Worker(Protocol):
    work: Work


class Teacher(Callback):
    """The network before it forgets, frozen in eval mode: a stage asks it for logits.

    Where images are not augmented, each sample's logits never change: they are computed once and looked up by sample
    index. Otherwise the teacher sees the very images of the batch. Its forward passes count as work of the stage.

    A stage makes one in `bind`, before `super().bind`, and returns it from `configure_callbacks`. It is no module of the
    stage, so it is neither trained nor synchronised nor saved with it.

    Args:
        classifier: The network; a copy is kept.
        artifacts: Where an earlier stage left the artifact `original`, the teacher has those weights; else those that the
            network has now.
        part: The part of the data that it is asked about.
        once: Whether its logits of the whole part are computed once where they can be; False where a stage asks about few of
            the samples.

    Runs on `on_fit_start` and `on_fit_end`.
    """

    def __init__(self, classifier: nn.Module, artifacts: Artifacts, part: Part = "train", once: bool = True) -> None:
        self.network = copy.deepcopy(classifier).eval().requires_grad_(False)
        if "original" in artifacts:
            self.network.load_state_dict(artifacts["original"])
        self.part = part
        self.once = once
        self._table: SampleTable | None = None

    def logits(self, batch: Batch) -> Tensor:
        """What the original says.

        Args:
            batch: Samples of the part.

        Returns:
            (B, K), at least float32, without gradient.
        """
        if self._table is not None:
            return self._table[batch.index]
        with torch.no_grad():
            return self._wide(batch)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move to the device, and compute the logits once where nothing random lies before them."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
        assert isinstance(data, UnlearningDataModule)
        self.network = trainer.precision_plugin.convert_module(self.network).to(pl_module.device)
        cast(_Worker, pl_module).work.watch(self.network)
        if data.augmentation is not None or not self.once:
            return
        self._table = SampleTable(len(data.part(self.part)[0]))
        self._table.add(self._wide, data, self.part, trainer)
        self.network.cpu()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the logits go."""
        self.network.cpu()
        self._table = None

    def _wide(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(batch.input)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
