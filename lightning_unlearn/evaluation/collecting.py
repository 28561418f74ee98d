"""From models to outputs: one pass over every part of the data, and what retain-only fine-tuning brings back."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_unlearn.chain.run import TrainerFactory, detach, run_chain
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.outputs import Outputs, PartOutputs
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.training import quiet

__all__ = ["check_relearning", "collect_outputs", "outputs_of", "relearn", "relearning_stages"]


class _LogitCollector(LightningModule):
    """Fills one table of logits per part; ranks fill their own rows."""

    def __init__(self, model: nn.Module, indices: Sequence[Tensor], mine: Sequence[bool]) -> None:
        super().__init__()
        self.model = model
        self.indices = indices
        self.mine = mine
        self.tables: list[Tensor | None] = [None] * len(indices)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        logits = self.model(batch.input).float()
        table = self._table(dataloader_idx, logits)
        if self.mine[dataloader_idx]:
            table[torch.searchsorted(self.indices[dataloader_idx].to(logits.device), batch.index)] = logits

    def on_predict_end(self) -> None:
        for i, table in enumerate(self.tables):
            assert table is not None
            self.tables[i] = sum_over_ranks(table, self.trainer).cpu()

    def _table(self, i: int, logits: Tensor) -> Tensor:
        table = self.tables[i]
        if table is None:
            table = self.tables[i] = logits.new_zeros(len(self.indices[i]), logits.shape[1])
        return table


def collect_outputs(
    fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule, parts: Sequence[Part] | None = None
) -> dict[Part, PartOutputs]:
    """Logits of a model on parts of the data: un-augmented, float32, each sample once on any number of ranks.

    Args:
        fresh: Makes a Trainer.
        model: Gives logits of images; runs in eval mode.
        data: The shared data.
        parts: Which parts; None: all that hold samples.

    Returns:
        Outputs by part.
    """
    parts = data.present if parts is None else parts
    samples = [data.part(part) for part in parts]
    with quiet():
        trainer = fresh(evaluation=True)
        data.trainer = trainer
        loaders = [data.evaluation_loader(part) for part in parts]
        mine = [len(loader) > 0 for loader in loaders]
        collector = _LogitCollector(model, [index for _, index in samples], mine).eval()
        # A rank that has no sample of a part looks at one, for the shape of what it adds zeros to: without any it would be left
        # out, and the others wait for it.
        there = [loader if some else loader.of_example() for loader, some in zip(loaders, mine, strict=True)]
        trainer.predict(collector, dataloaders=there, return_predictions=False)
    model.cpu()
    detach(model)
    outputs: dict[Part, PartOutputs] = {}
    for part, (source, index), table in zip(parts, samples, collector.tables, strict=True):
        assert table is not None
        outputs[part] = PartOutputs(table, source.targets[index], index)
    return outputs


def outputs_of(fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule) -> Outputs:
    """Outputs of a model on all parts of the data.

    Args:
        fresh: Makes a Trainer.
        model: Gives logits of images.
        data: The shared data.

    Returns:
        The outputs; `unseen` is None where there are no unseen samples.
    """
    return Outputs(**collect_outputs(fresh, model, data))


def _relearning_optimizer(params: list[nn.Parameter]) -> Optimizer:
    return SGD(params, lr=0.02, momentum=0.9)


def check_relearning(epochs: int) -> None:
    """Refuse a length of the fine-tuning that shows whether memories come back, before anything is computed.

    Args:
        epochs: Epochs of it; 0: it is left out.

    Raises:
        ConfigError: They are negative.
    """
    if epochs < 0:
        raise ConfigError(f"relearn_epochs is {epochs}; needed: 0 or more. Give --relearn_epochs 0 to leave relearning out.")


def relearning_stages(epochs: int) -> list[UnlearningStage]:
    """The chain that shows whether memories come back: fine-tuning of the whole network on retained samples alone.

    Args:
        epochs: Epochs, SGD at learning rate 0.02, momentum 0.9.

    Returns:
        One stage.
    """
    return [FineTune(max_epochs=epochs, optimizer=_relearning_optimizer, cache=False)]


def relearn(
    fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule, epochs: int, parts: Sequence[Part]
) -> dict[Part, PartOutputs]:
    """Outputs on parts of the data after a copy of the model was fine-tuned on the retained samples alone.

    Memories that were only covered come back without being shown again.

    Args:
        fresh: Makes a Trainer.
        model: Gives logits of images; stays as it is.
        data: The shared data.
        epochs: Epochs of fine-tuning; see `relearning_stages`.
        parts: Which parts.

    Returns:
        Outputs by part.
    """
    relearned = copy.deepcopy(model)
    measure = partial(fresh, measuring=True)
    run_chain(measure, relearned, data, relearning_stages(epochs))
    return collect_outputs(fresh, relearned, data, parts)
