"""What one model answers on every sample: all that metrics and attacks ever see of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Self

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.files import write_atomic
from lightning_unlearn.functional.divergences import margin

__all__ = ["Outputs", "PartOutputs"]

_FIELDS = ("logits", "targets", "index")
_PARTS = ("forget", "retain", "test", "unseen")


@dataclass(frozen=True, eq=False)
class PartOutputs:
    """One model on one part of the data, un-augmented, each sample once, in the order of the sample indices.

    Attributes:
        logits: (N, K), float32, finite, on the CPU; N >= 1, K >= 2.
        targets: Labels, (N,), int64, in 0 ... K - 1.
        index: Sample indices, (N,), int64, strictly ascending.

    Raises:
        DataError: A shape, type, device, label or index is not as above, or a logit is not finite.
    """

    logits: Tensor
    targets: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.dtype != torch.float32 or self.logits.device.type != "cpu":
            raise DataError(
                f"Logits of shape {tuple(self.logits.shape)}, {self.logits.dtype}, on {self.logits.device}; "
                "needed: (N, K), torch.float32, on the CPU."
            )
        n, k = self.logits.shape
        if n < 1 or k < 2:
            raise DataError(f"Logits of {n} samples and {k} classes; needed: at least one sample and two classes.")
        for name, values in (("targets", self.targets), ("index", self.index)):
            if values.shape != (n,) or values.dtype != torch.int64 or values.device.type != "cpu":
                raise DataError(
                    f"{name} of shape {tuple(values.shape)}, {values.dtype}, on {values.device}; "
                    f"needed: ({n},), torch.int64, on the CPU, one per row of the logits."
                )
        low, high = int(self.targets.min()), int(self.targets.max())
        if low < 0 or high >= k:
            raise DataError(f"Labels from {low} to {high}; needed: 0 to {k - 1}, as the logits have {k} columns.")
        if bool((self.index[1:] <= self.index[:-1]).any()):
            raise DataError(
                "Sample indices that repeat or are out of order; needed: each sample once, ascending. "
                "`PartOutputs.gathered` sorts, and drops the copies that a distributed sampler adds."
            )
        if not bool(self.logits.isfinite().all()):
            bad = int((~self.logits.isfinite()).any(1).sum())
            raise DataError(f"{bad} of {n} samples have logits that are not finite; the model has diverged.")

    @classmethod
    def gathered(cls, logits: Tensor, targets: Tensor, index: Tensor) -> Self:
        """Outputs from batches in any order and from any number of ranks, where padding may repeat samples.

        Args:
            logits: (N, K), any floating type and device.
            targets: (N,), int64.
            index: (N,), int64; of a sample that occurs twice the first row is kept.

        Returns:
            Each sample once, ordered by index, on the CPU.
        """
        index, order = index.cpu().sort(stable=True)
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = index[1:] != index[:-1]
        order = order[first]
        return cls(logits.detach().cpu().float()[order], targets.cpu()[order], index[first])

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_classes(self) -> int:
        """K, the number of columns of the logits."""
        return self.logits.shape[1]

    @property
    def predictions(self) -> Tensor:
        """Predicted classes, (N,), int64."""
        return self.logits.argmax(1)

    @property
    def correct(self) -> Tensor:
        """Where the prediction is the label, (N,), bool."""
        return self.predictions == self.targets

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, in 0 ... 1."""
        return int(self.correct.sum()) / len(self)

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, (N, K), float64."""
        return self.logits.double().softmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the true class, (N,), float64."""
        return self.margins.sigmoid()

    @cached_property
    def margins(self) -> Tensor:
        """Margins log p_y - log sum of the others, (N,), float64: `confidence` without saturation."""
        return margin(self.logits, self.targets)

    def select(self, mask: Tensor) -> Self:
        """Keep some samples.

        Args:
            mask: (N,), bool; true at least once.

        Returns:
            The samples where `mask` holds.
        """
        return type(self)(self.logits[mask], self.targets[mask], self.index[mask])


@dataclass(frozen=True, eq=False)
class Outputs:
    """One model on all parts of the data.

    Attributes:
        forget: On D_f.
        retain: On D_r.
        test: On the test set.
        unseen: On samples of the training distribution that no model was trained on; None where there are
            none.

    Raises:
        DataError: The parts differ in their number of classes, or a sample is in more than one of the parts
            of the training set (forget, retain).
    """

    forget: PartOutputs
    retain: PartOutputs
    test: PartOutputs
    unseen: PartOutputs | None = None

    def __post_init__(self) -> None:
        classes = {name: part.num_classes for name, part in self.parts().items()}
        if len(set(classes.values())) > 1:
            raise DataError(f"Parts with different numbers of classes: {classes}; needed: outputs of one model.")
        shared = torch.isin(self.forget.index, self.retain.index)
        if bool(shared.any()):
            raise DataError(f"{int(shared.sum())} samples are in forget and in retain; needed: disjoint parts.")

    def parts(self) -> dict[str, PartOutputs]:
        """The parts that are there.

        Returns:
            By name: forget, retain, test and, where there is one, unseen.
        """
        found = {"forget": self.forget, "retain": self.retain, "test": self.test}
        return found if self.unseen is None else {**found, "unseen": self.unseen}

    def save(self, path: str | Path) -> None:
        """Write a plain dict of tensors, `<part>.<field>`; complete or not at all.

        The file holds per-sample outputs of forgotten samples: write it only where the user asks for it.

        Args:
            path: The file; missing folders are made.
        """
        # Cloned: torch.save writes the whole storage behind a view, with samples that are not part of it.
        tensors = {f"{name}.{field}": getattr(part, field).clone() for name, part in self.parts().items() for field in _FIELDS}
        write_atomic(path, lambda file: torch.save(tensors, file))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The same outputs.

        Raises:
            DataError: The file is missing, damaged, or holds something else.
        """
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
            raise DataError(f"Cannot read outputs from {path}: {error}. Needed: a file of `Outputs.save`.") from error
        names = [name for name in _PARTS if isinstance(tensors, Mapping) and f"{name}.logits" in tensors]
        wanted = {f"{name}.{f}" for name in names for f in _FIELDS}
        if not set(names) >= set(_PARTS[:3]) or set(tensors) != wanted:
            raise DataError(f"{path} does not hold outputs of this package. Needed: a file of `Outputs.save`.")
        return cls(**{name: PartOutputs(*(tensors[f"{name}.{f}"] for f in _FIELDS)) for name in names})
