"""What a model made of every training sample while it learnt: its margin, its loss, and the class that came next."""

from typing import NoReturn

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ConfigError

__all__ = ["RecordMargins"]

# Rows of the table of an epoch.
MARGIN, LOSS, RIVAL = range(3)
UNSEEN = float("-inf")


class RecordMargins(Callback):
    """Records for every training sample, from the logits of the training forward passes, what `detect` needs.

    The sum of its margins over the epochs, the assigned logit minus the largest other one, whose mean is the area under the
    margin (AUM; Pleiss et al. 2020, NeurIPS); its loss in every epoch, for the loss at an early epoch, since wrong labels are
    learnt later than right ones; and in every epoch the class of that largest other logit, which is what the label would
    rather be. Samples are known by their index, so any order and any number of ranks give the same.

    Nothing is read back from the device during an epoch, and ranks speak once an epoch. The record lies in the checkpoint, as
    plain tensors: 24 bytes a sample, and 8 a sample and epoch (19 MB for 60,000 samples and 40 epochs).

    Works with any LightningModule whose `training_step` calls `self(images)` for logits (B, K), with an
    `UnlearningDataModule` that serves the view `train` or `retain`. Does nothing in the stages of unlearning.

    Every fit begins a record, unless it is resumed.

    Runs on `setup`, `on_train_start`, `on_train_batch_start`, `on_train_batch_end`, `on_train_epoch_end`, `on_save_checkpoint`
    and `teardown`.
    """

    def __init__(self) -> None:
        self._record: dict[str, Tensor] = {}
        self._pending: Tensor | None = None  # table of the epoch, (3, N): each rank's own samples, UNSEEN elsewhere
        self._pending_epoch = -1
        self._batch: Batch | None = None
        self._logits: Tensor | None = None
        self._handle: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the record of an earlier fit go; a checkpoint brings its own after this."""
        if stage == "fit":
            self._record, self._pending, self._pending_epoch = {}, None, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the module's forward passes.

        Args:
            trainer: Knows the data.
            pl_module: Gives logits.

        Raises:
            ConfigError: The data have no sample indices, or are not those of the record that goes on.
        """
        from lightning_unlearn.stages.base import UnlearningStage  # stages import callbacks

        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
        if isinstance(pl_module, UnlearningStage):
            return
        if not isinstance(data, UnlearningDataModule) or data.serving.view not in ("train", "retain") or data.serving.seeds:
            view = f" that serves {data.serving.view!r}" if isinstance(data, UnlearningDataModule) else ""
            raise ConfigError(
                f"RecordMargins: the data are a {type(data).__name__}{view}; needed: an UnlearningDataModule that serves "
                "'train' or 'retain' to one model, whose batches know the indices of their samples."
            )
        device, n = pl_module.device, len(data.samples)
        if not self._record:
            self._record = {
                "hashes": data.samples.hashes.clone(),
                "targets": data.samples.targets.clone(),
                "margin_sum": torch.zeros(n, dtype=torch.float64),
                "seen": torch.zeros(n, dtype=torch.int64),
                "losses": torch.empty(0, n),
                "rivals": torch.empty(0, n, dtype=torch.int32),
            }
        elif not torch.equal(self._record["hashes"], data.samples.hashes):
            raise ConfigError("RecordMargins: the checkpoint's record is of other data. Resume with those it began with.")
        if self._pending is not None:
            # What the checkpoint holds of an unfinished epoch is that of all ranks.
            pending = self._pending if trainer.is_global_zero else torch.full_like(self._pending, UNSEEN)
            self._pending = pending.to(device)
        self._handle = pl_module.register_forward_hook(self._keep)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Remember the batch; with the first one of an epoch begin a table, unless a resumed epoch has one."""
        if self._handle is None:
            return
        self._batch, self._logits = (batch if isinstance(batch, Batch) else None), None
        if self._pending is not None and self._pending_epoch != trainer.current_epoch:
            # Its checkpoint was written between the last step of an epoch and the epoch's end, which does not come again.
            self._finish_epoch(trainer)
        if self._pending is None:
            self._pending = torch.full((3, len(self._record["seen"])), UNSEEN, device=pl_module.device)
            self._pending_epoch = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write the batch's rows.

        Args:
            trainer: Not used.
            pl_module: For the message.
            outputs: Not used.
            batch: The batch.
            batch_idx: Not used.
        """
        if self._handle is None:
            return
        if self._batch is None or self._logits is None:
            self._complain(pl_module)
        assert self._pending is not None
        rows = _rows(self._logits.float(), self._batch.target)
        self._pending[:, self._batch.index] = rows
        self._batch = self._logits = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch to the record."""
        if self._handle is not None and self._pending is not None:
            self._finish_epoch(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the module."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def state_dict(self) -> dict[str, Tensor]:
        """The finished epochs.

        Returns:
            `hashes` (N,) and `targets` (N,), int64, of the training samples; `margin_sum` (N,), float64; `seen` (N,), int64,
            how many epochs served the sample; `losses` (E, N), float32, NaN where an epoch did not; `rivals` (E, N), int32,
            -1 where it did not. Empty before the first fit.
        """
        return dict(self._record)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        """Add what an unfinished epoch has so far, of all ranks."""
        callbacks = checkpoint.get("callbacks")
        if self._handle is not None and self._pending is not None and isinstance(callbacks, dict):
            together = _over_ranks(self._pending, trainer).cpu()
            epoch = torch.tensor(self._pending_epoch)
            callbacks[self.state_key] = {**self._record, "pending": together, "pending_epoch": epoch}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Go on with a record.

        Args:
            state_dict: What `state_dict` gave.
        """
        self._record = {name: value for name, value in state_dict.items() if not name.startswith("pending")}
        self._pending = state_dict.get("pending")
        self._pending_epoch = int(state_dict.get("pending_epoch", torch.tensor(-1)))

    def _keep(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        """Keep the first logits of the step: under DDP a call of `training_step` passes here too, and gives a loss."""
        if self._batch is None or self._logits is not None or not isinstance(output, Tensor):
            return
        if output.dim() == 2 and len(output) == len(self._batch.index) and output.shape[1] > 1:
            self._logits = output.detach()

    def _finish_epoch(self, trainer: Trainer) -> None:
        assert self._pending is not None
        table = _over_ranks(self._pending, trainer).cpu()
        self._pending = None
        seen = table[LOSS] != UNSEEN
        record = self._record
        # New tensors: an asynchronous save may still read the old ones.
        record["margin_sum"] = record["margin_sum"] + torch.where(seen, table[MARGIN].double(), 0.0)
        record["seen"] = record["seen"] + seen
        losses = torch.where(seen, table[LOSS], torch.nan)
        rivals = torch.where(seen, table[RIVAL], -1.0).int()
        record["losses"] = torch.cat([record["losses"], losses[None]])
        record["rivals"] = torch.cat([record["rivals"], rivals[None]])

    @staticmethod
    def _complain(module: LightningModule) -> NoReturn:
        raise ConfigError(
            f"RecordMargins: no forward pass of {type(module).__name__} gave logits (B, K) of its batch; needed: a "
            "training_step that calls self(batch.input), on batches of one view. Leave the callback out otherwise."
        )


def _rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Margin, loss and class of the largest other logit of each sample, (3, B)."""
    own = logits.gather(1, targets[:, None]).squeeze(1)
    other, rival = logits.scatter(1, targets[:, None], -torch.inf).max(1)
    return torch.stack([own - other, F.cross_entropy(logits, targets, reduction="none"), rival.to(logits.dtype)])


def _over_ranks(table: Tensor, trainer: Trainer) -> Tensor:
    """The table of all ranks: by maximum, so that a sample that two ranks were served still counts once."""
    return table if trainer.world_size == 1 else trainer.strategy.reduce(table.clone(), reduce_op="max")
