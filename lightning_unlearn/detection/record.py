"""What `RecordMargins` left in a checkpoint, for the samples as they are now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

__all__ = ["MarginRecord"]


@dataclass(frozen=True)
class MarginRecord:
    """The course of training, of the training part of the data.

    Attributes:
        margin_sum: Sum of the margins over the epochs, (N,), float64.
        seen: Epochs that served the sample, (N,), int64.
        losses: (E, N), float32, NaN where an epoch did not serve it.
        rivals: Strongest class besides the label, (E, N), int32, -1 where an epoch did not serve it.
    """

    margin_sum: Tensor
    seen: Tensor
    losses: Tensor
    rivals: Tensor

    @classmethod
    def load(cls, checkpoint: str | Path, data: UnlearningDataModule) -> "MarginRecord | None":
        """Read a record.

        Args:
            checkpoint: A checkpoint of `fit`.
            data: The data.

        Returns:
            The record; None where the training was not recorded.
        """
        path = Path(checkpoint)
        if path.suffix == ".safetensors" or not path.is_file():
            return None
        state = AtomicCheckpointIO().load_checkpoint(path)
        found = state.get("callbacks") if isinstance(state, Mapping) else None
        record = found.get(RecordMargins.__qualname__) if isinstance(found, Mapping) else None
        return cls.of(record, data, str(path)) if record else None

    @classmethod
    def of(cls, state: Mapping[str, Tensor], data: UnlearningDataModule, where: str = "the record") -> "MarginRecord":
        """Take a record's rows of the samples of the part `train`, in the order of their indices.

        Args:
            state: `RecordMargins.state_dict()`.
            data: The data; samples are found by the hash of their key.
            where: Where it comes from, for messages.

        Returns:
            The record; samples that it does not know were seen in no epoch.

        Raises:
            CheckpointError: It knows none of the samples, or knew one of them by another label.
        """
        samples, index = data.part("train")
        place = {key: i for i, key in enumerate(state["hashes"].tolist())}
        found = torch.tensor([place.get(key, -1) for key in samples.hashes[index].tolist()])
        known = found >= 0
        if not bool((known & (state["seen"][found] > 0)).any()):
            raise CheckpointError(
                f"{where} is a record of other samples than these {len(index)}. Give the data that the model was trained on."
            )
        other = known & (state["seen"][found] > 0) & (state["targets"][found] != samples.targets[index])
        if bool(other.any()):
            raise CheckpointError(
                f"{where} knows {int(other.sum())} of {len(index)} samples by other labels than the data have now. Give the "
                "labels that the model was trained on, label noise and its seed included."
            )
        return cls(
            torch.where(known, state["margin_sum"][found], 0.0),
            torch.where(known, state["seen"][found], 0),
            torch.where(known, state["losses"][:, found], torch.nan),
            torch.where(known, state["rivals"][:, found], -1),
        )
