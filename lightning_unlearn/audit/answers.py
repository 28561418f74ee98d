"""What many models say about the labels of the same samples: all that an audit ever sees of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Self

import torch
from torch import Tensor, nn

from lightning_unlearn.chain.run import TrainerFactory, detach
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.files import write_atomic
from lightning_unlearn.functional.divergences import margin
from lightning_unlearn.functional.quantise import dequantise_weights, quantise_weights
from lightning_unlearn.training import quiet

__all__ = ["Answers", "answers_of", "audited_samples", "rounded_to_int8"]

# Samples of every part but the forgotten one: more would only sharpen figures whose spread comes from the models.
SAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of M models to the N samples of each part.

    Attributes:
        margins: By part, (M, N), float64: log p_y - log of the sum of the others.
        correct: By part, (M, N), bool.
        costs: By name, one value per model, (M,), float64; empty for models that were trained.
    """

    margins: Mapping[str, Tensor]
    correct: Mapping[str, Tensor]
    costs: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.margins.values())))

    def __getitem__(self, models: slice) -> Self:
        """Some of the models."""
        tables = (self.margins, self.correct, self.costs)
        return type(self)(*({name: value[models] for name, value in table.items()} for table in tables))

    def accuracy(self, part: str, mask: Tensor | None = None) -> Tensor:
        """Accuracy of each model on a part, or on some of its samples, (M,), float64, in 0 ... 1."""
        correct = self.correct[part]
        return (correct if mask is None else correct[:, mask]).double().mean(1)

    def with_parts(self, other: Self) -> Self:
        """The same models with further parts, taken from other answers of theirs."""
        return type(self)({**self.margins, **other.margins}, {**self.correct, **other.correct}, self.costs)

    def with_costs(self, costs: Mapping[str, Tensor]) -> Self:
        """The same answers with what making the models took."""
        return type(self)(self.margins, self.correct, costs)

    def without(self, part: Part) -> Self:
        """The same answers but for a part, with whatever weights."""
        tables = (self.margins, self.correct)
        margins, correct = ({name: v for name, v in by.items() if name.split("/")[0] != part} for by in tables)
        return type(self)(margins, correct, self.costs)

    def renamed(self, suffix: str) -> Self:
        """The same answers with a word behind the name of each part, such as `forget/int8`."""
        margins, correct = ({f"{part}/{suffix}": v for part, v in by.items()} for by in (self.margins, self.correct))
        return type(self)(margins, correct, {})

    @classmethod
    def joined(cls, chunks: Sequence[Self]) -> Self:
        """Answers of all models of several groups, one after another; parts that not all groups have are left out.

        Args:
            chunks: At least one.

        Returns:
            Their models together.
        """
        tables = [[getattr(chunk, name) for chunk in chunks] for name in ("margins", "correct", "costs")]
        return cls(*({key: torch.cat([t[key] for t in table]) for key in table[0] if all(key in t for t in table)}
                     for table in tables))  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a plain dict of tensors, whole or not at all.

        Args:
            path: The file; missing folders are made.
        """
        tables = {"margins": self.margins, "correct": self.correct, "costs": self.costs}
        flat = {f"{name}.{key}": value.clone() for name, table in tables.items() for key, value in table.items()}
        write_atomic(path, lambda file: torch.save(flat, file))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The answers, or None where the file is missing or damaged: they are then collected again.
        """
        try:
            flat = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError):
            return None
        tables: dict[str, dict[str, Tensor]] = {"margins": {}, "correct": {}, "costs": {}}
        for key, value in flat.items():
            table, _, name = key.partition(".")
            tables[table][name] = value
        return cls(**tables)


def audited_samples(data: UnlearningDataModule) -> dict[Part, Tensor]:
    """Which samples an audit looks at: all forgotten ones, and a random part of each other part.

    Args:
        data: The data.

    Returns:
        Sample indices by part, (N,), sorted, int64; parts without samples are left out.
    """
    return {part: data.random_part(part, None if part == "forget" else SAMPLES, "audit") for part in data.present}


def answers_of(
    fresh: TrainerFactory, models: Iterable[nn.Module], data: UnlearningDataModule, samples: Mapping[Part, Tensor]
) -> Answers:
    """Answers of models, un-augmented, in eval mode, float32 with margins in float64.

    Args:
        fresh: Makes a Trainer, which says on which device.
        models: Give logits of images; each is back on the CPU afterwards.
        data: The data.
        samples: Sample indices by part.

    Returns:
        One row per model.
    """
    with quiet():
        trainer = fresh(evaluation=True)
    before, data.trainer = data.trainer, trainer
    device = trainer.strategy.root_device
    try:
        batches = {part: list(data.evaluation_loader(part, index)) for part, index in samples.items()}
    finally:
        data.trainer = before
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {part: [] for part in samples}
    for model in models:
        model.eval().to(device)
        for part, of_part in batches.items():
            rows[part].append(_answers(model, of_part))
        model.cpu()
        detach(model)
    return Answers(
        {part: torch.stack([margins for margins, _ in each]) for part, each in rows.items()},
        {part: torch.stack([correct for _, correct in each]) for part, each in rows.items()},
        {},
    )


@torch.no_grad()
def _answers(model: nn.Module, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    logits = torch.cat([model(batch.input).float() for batch in batches])
    if not bool(logits.isfinite().all()):
        raise DataError("A model gives logits that are not finite; it has diverged.")
    targets = torch.cat([batch.target for batch in batches])
    return margin(logits, targets).cpu(), (logits.argmax(1) == targets).cpu()


def rounded_to_int8(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights as they are after 8-bit rounding per output channel.

    Args:
        model: The model; stays as it is.

    Returns:
        A state dict for `load_state_dict`.
    """
    return dequantise_weights(quantise_weights(model.state_dict()))
