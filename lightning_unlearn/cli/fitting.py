"""What a `fit` of the command line keeps and shows."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule

__all__ = ["EpochLines", "KeepLast", "LogLoss", "RunLogger", "in_a_line"]

log = logging.getLogger(__name__)


class RunLogger(CSVLogger):
    """Writes `metrics.csv` straight into the folder of the run, and goes on with it in a resumed run.

    Args:
        folder: The folder.
        kept_steps: Of the rows of an interrupted run those before this step are kept; None: there is none.
    """

    def __init__(self, folder: Path, kept_steps: int | None = None) -> None:
        super().__init__(folder, name="", version="")
        self._file = folder / "metrics.csv"
        self._before = "" if kept_steps is None else _rows_before(self._file, kept_steps)

    def log_hyperparams(self, params: object = None) -> None:
        """Nothing: config.yaml says it all."""

    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Record metrics.

        Args:
            metrics: By name.
            step: Step of the fit.
        """
        if self._before:
            # Lightning deletes an older file when it opens a new one.
            experiment, text, self._before = self.experiment, self._before, ""
            experiment.metrics_keys = text.splitlines()[0].split(",")
            # Bytes: line ends stay those that the csv module wrote.
            self._file.write_bytes(text.encode())
        super().log_metrics(dict(metrics), step)


def _rows_before(file: Path, step: int) -> str:
    """The rows of a metrics file that a resumed run does not write again; what cannot be read of it must not stop the run."""
    if not file.is_file():
        return ""
    header, *rows = file.read_bytes().decode(errors="replace").splitlines(keepends=True) or [""]
    names = header.rstrip().split(",")
    steps = [_step_of(row, names) for row in rows]
    if None in steps or not header.endswith("\n"):
        lost = f"{steps.count(None)} of its {len(rows)} rows" if rows else "it has no whole line"
        log.info("note: %s is damaged, so what cannot be read of it is left out (%s).", file, lost)
    kept = [row for row, at in zip(rows, steps, strict=True) if at is not None and at < step]
    return "".join([header, *kept]) if kept else ""


def _step_of(row: str, names: list[str]) -> int | None:
    """The step of a row under these names of columns; None where it was cut short or overwritten."""
    values = row.rstrip("\r\n").split(",")
    try:
        step = int(dict(zip(names, values, strict=True))["step"])
    except (KeyError, ValueError):
        return None
    return step if row.endswith("\n") else None


class KeepLast(ModelCheckpoint):
    """Keeps the state after every epoch as `last.ckpt`, with the split of its data beside it.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True, save_top_k=1
        )
        self._ended_an_epoch = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state."""
        super().on_train_epoch_end(trainer, pl_module)
        self._ended_an_epoch = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that was resumed behind the last step of all: Lightning does not end that epoch once more."""
        super().on_train_end(trainer, pl_module)
        if not self._ended_an_epoch:
            trainer.save_checkpoint(Path(self.dirpath or ".") / "last.ckpt")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        """Save the split before the checkpoint that it belongs to."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
        if trainer.is_global_zero and isinstance(data, UnlearningDataModule):
            split = data.saved_split(everything_trained=data.serving.view == "train")
            split.save(Path(self.dirpath or ".") / "split.json")


class LogLoss(Callback):
    """Logs what `training_step` returns as `train/loss`, where the module itself logs no loss."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._samples = 0
        self._is_ours = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is not watched."""
        if not is_overridden("validation_step", pl_module):
            name = type(pl_module).__name__
            log.info("note: %s has no validation_step, so nothing is measured on unseen samples while it trains.", name)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new mean."""
        self._sum, self._samples = 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add a batch, whose loss Lightning has divided by the number of batches of a step."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and isinstance(batch, Batch):
            self._sum = self._sum + loss.detach() * trainer.accumulate_grad_batches * len(batch.target)
            self._samples += len(batch.target)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean."""
        # From the second epoch on, what stands there may be our own.
        self._is_ours = self._is_ours or not any("loss" in name for name in trainer.callback_metrics)
        if self._samples and self._is_ours:
            pl_module.log("train/loss", self._sum / self._samples, sync_dist=True)


class EpochLines(Callback):
    """One line per epoch where there is no terminal for a progress bar.

    Attributes:
        figures: Those of the last line; empty before there is one.
    """

    figures: str = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch that is gone on with."""
        self._begin = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it went."""
        self.figures = in_a_line(trainer.callback_metrics)
        seconds = time.perf_counter() - self._begin
        log.info("epoch %s/%s  %s  (%.1f s)", trainer.current_epoch + 1, trainer.max_epochs, self.figures, seconds)


def in_a_line(figures: Mapping[str, Tensor | float]) -> str:
    """Figures for a person to read.

    Args:
        figures: By name.

    Returns:
        One line, sorted by name.
    """
    return "  ".join(f"{name} {float(value):.4g}" for name, value in sorted(figures.items()))
