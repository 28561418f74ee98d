"""One call of the command line with everything that it needs, and what is written down when it begins."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.cli.configs import Tree
from lightning_unlearn.cli.redact import without_names
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.sisa.store import successor_of
from lightning_unlearn.trainer import UnlearningTrainer

__all__ = ["OWN_WEIGHTS", "Job", "newest_checkpoint"]

# In place of a checkpoint: the model's class loads its weights itself.
OWN_WEIGHTS = "none"


@dataclass
class Job:
    """One call with everything that it needs.

    Attributes:
        call: The call.
        folder: Its folder.
        trainer: Its Trainer.
        model: Its model.
        data: Its data.
        arguments: Arguments of the Trainer's method.
        config: The full configuration, in plain values.
        own_weights: Whether `--checkpoint none` says that the model comes with its weights.
        unnamed_rule: Where nobody named what to forget, a sentence that says so.
    """

    call: Call
    folder: RunFolder
    trainer: UnlearningTrainer
    model: LightningModule
    data: UnlearningDataModule
    arguments: dict[str, Any]
    config: Tree
    own_weights: bool = False
    unnamed_rule: str | None = None

    def __post_init__(self) -> None:
        if self.arguments.get("checkpoint") == OWN_WEIGHTS:
            self.arguments["checkpoint"], self.own_weights = None, True
        elif isinstance(given := self.arguments.get("checkpoint"), str):
            self.arguments["checkpoint"] = self.config["checkpoint"] = _file_of(given)

    @property
    def split_of(self) -> str | None:
        """Of a `fit`, the run whose reference it trains."""
        if self.folder.resumed:
            found = self.folder.record().get("split_of")
            return None if found is None else str(found)
        return self.call.run

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    def begin(self, checkpoint: str | None) -> None:
        """Write down what the run is, or see that an interrupted one goes on unchanged.

        Args:
            checkpoint: Weights that it starts from.
        """
        command = self.call.command or ""
        record: Tree = {
            **{part: self.data.fingerprint(part) for part in ("retain", "forget", "unseen")},
            "checkpoint": None if checkpoint is None else _hash(checkpoint),
        }
        if command == "fit" and self.split_of is not None:
            record["split_of"] = self.split_of
        if self.folder.resumed:
            self.folder.check(command, self.config, record)
        else:
            self.folder.start(command, self.config, record)
        self.say(f"input: {self.data.dataset.input}; {self.data.dataset.num_classes} classes")
        self.trainer.configuration = without_names(self.config)

    def needs_weights(self, checkpoint: str | None) -> None:
        """Refuse to work on an untrained network.

        Args:
            checkpoint: What was given.

        Raises:
            ConfigError: There is none, and nobody said that the model comes with its weights.
        """
        if checkpoint is None and not self.own_weights:
            raise ConfigError(
                f"{self.call.command} needs a trained model. Give --checkpoint runs/fit/1/checkpoints/last.ckpt, for instance; "
                f"or --checkpoint {OWN_WEIGHTS} for a model whose class loads its weights itself."
            )

    def say(self, text: str) -> None:
        """Print a line, once over all ranks.

        Args:
            text: The line.
        """
        if self.folder.first:
            # Whoever reads a pipe may stop doing so.
            with contextlib.suppress(BrokenPipeError):
                print(text, flush=True)

    @property
    def seed(self) -> object:
        """The seed, for the person to see."""
        return self.config.get("seed_everything")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest training state of a `fit`.

    Args:
        folder: The run's folder.

    Returns:
        The file, or None where there is none yet.
    """
    return max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _file_of(checkpoint: str) -> str:
    """The checkpoint that is meant, where the folder of a run was given."""
    path = Path(checkpoint)
    if path.is_dir():
        finished = [file for file in (path / "unlearned.ckpt", path / "last.ckpt") if file.is_file()]
        path = next(iter(finished), newest_checkpoint(path) or path)
    if not path.is_file() and (run := successor_of(path)) is not None:
        raise CheckpointError(f"{checkpoint} went with samples that it knew; {run} took its place. Give --checkpoint {run}.")
    return str(path) if path.is_file() else checkpoint


def _hash(checkpoint: str) -> str:
    if not checkpoint or "://" in checkpoint:
        raise CheckpointError(f"{checkpoint!r} is no local file; needed: the path of a checkpoint on this machine.")
    try:
        return hash_of_file(Path(checkpoint))
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error.strerror}. Needed: a checkpoint file.") from None
