"""The cells of an audit: which models are made, from which seeds, and how each cell's answers are kept."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_unlearn.audit.answers import SAMPLES, Answers, answers_of, audited_samples, rounded_to_int8
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.identity import digest, setup_of
from lightning_unlearn.chain.many import run_chain_many
from lightning_unlearn.chain.methods import Method
from lightning_unlearn.chain.run import StageResult, TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.evaluation.collecting import relearning_stages
from lightning_unlearn.exceptions import DataError

__all__ = ["CHUNK", "Cell", "Cells", "Group", "asked", "cells_of", "seeds_of"]

Group: TypeAlias = Literal["original", "reference", "held_out", "unlearned", "shadow"]

# Models of one cell: enough to be trained together, few enough that a killed run loses little.
CHUNK = 20
# All shadows of a cell forget the same other samples: few of them, so that their spread holds the draw of samples too.
SHADOWS = 5
# What models with other weights are asked again: the forgotten samples, and the population that RMIA compares them with.
_ASKED_AGAIN: tuple[Part, ...] = ("forget", "unseen", "test")
# Seeds of retrained models of one forget set; more than an audit ever needs.
_SEEDS_PER_SET = 10_000


@dataclass(frozen=True)
class Cell:
    """Models that are made together.

    Attributes:
        group: `original`, `reference` and `held_out` are trained; `unlearned` are originals after a method forgot the forget
            set, `shadow` are held-out references after it forgot as many other samples.
        seeds: One per model.
        method: Name of the method, empty for trained models.
        build: The method.
    """

    group: Group
    seeds: tuple[int, ...]
    method: str = ""
    build: Method | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """For the log and the file's name."""
        return f"{self.method or self.group}{'-shadow' if self.group == 'shadow' else ''}-{self.seeds[0]}"


def seeds_of(group: Group, count: int, forget_set: int) -> list[int]:
    """Seeds of a group's models.

    Originals have 0, 10, 20 ...: multiples of ten, as in `benchmark`. Retrained models of forget set i have the numbers from
    10,000 i on that are no multiples of ten, references and held-out references in turn: 1, 3, 5 ... and 2, 4, 6 ... So no two
    models of a forget set share a seed, and a larger audit goes on with the models of a smaller one.

    Args:
        group: Unlearned models have the seeds of their originals, shadows those of the held-out references.
        count: Models.
        forget_set: Number of the forget set, from 0.

    Returns:
        As many different seeds.
    """
    if group in ("original", "unlearned"):
        return [10 * i for i in range(count)]
    places = range(0 if group == "reference" else 1, 2 * count, 2)
    return [_SEEDS_PER_SET * forget_set + 10 * (k // 9) + k % 9 + 1 for k in places]


def cells_of(group: Group, count: int, forget_set: int, method: str = "", build: Method | None = None) -> list[Cell]:
    """The cells of a group, as equal in size as they can be.

    Args:
        group: See `seeds_of`.
        count: Models.
        forget_set: Number of the forget set, from 0.
        method: Name of the method.
        build: The method.

    Returns:
        Cells of at most `CHUNK` models, of shadows `SHADOWS`.
    """
    seeds = seeds_of(group, count, forget_set)
    cells = -(-count // (SHADOWS if group == "shadow" else CHUNK))
    return [Cell(group, tuple(seeds[count * i // cells : count * (i + 1) // cells]), method, build) for i in range(cells)]


@dataclass
class Cells:
    """Runs the cells of one forget set, or reads them where they are finished.

    Attributes:
        fresh: Makes a Trainer.
        data: The data with its forget set.
        recipe: How originals and references are trained.
        bank: Where they are kept.
        folder: Where answers are kept.
        number: Number of the forget set.
        relearn_epochs: Epochs of retain-only fine-tuning, after which all models answer again; 0: left out.
        int8: Whether all models answer again with their weights rounded to 8 bits.
    """

    fresh: TrainerFactory
    data: UnlearningDataModule
    recipe: Recipe
    bank: Bank
    folder: Path
    number: int
    relearn_epochs: int = 0
    int8: bool = True

    def path(self, cell: Cell) -> Path:
        """Where a cell's answers are kept; the name stands for everything that they depend on.

        Args:
            cell: The cell.

        Returns:
            A file.
        """
        method = None if cell.build is None else cell.build.identity
        return self.folder / f"{cell.name}-{digest([*self._content, cell.group, cell.seeds, cell.method, method])}.pt"

    @cached_property
    def _content(self) -> list[object]:
        recipe = self.bank.content(self.recipe, self.recipe.build(0), self.data, "train", 0)
        how = (self.relearn_epochs, self.int8, SAMPLES, _ASKED_AGAIN)
        return [*setup_of(self.fresh, self.data), recipe, self.number, *how]

    @cached_property
    def samples(self) -> dict[Part, Tensor]:
        """Sample indices that every model answers to, by part."""
        return audited_samples(self.data)

    @cached_property
    def no_shadows(self) -> str:
        """Why nothing else can be forgotten that D_f could be told from; empty where something can."""
        try:
            self._without_forgotten(0).part("forget")
        except DataError as error:
            return str(error)
        return ""

    def run(self, cell: Cell) -> None:
        """Make the models of a cell and keep their answers.

        Args:
            cell: The cell.
        """
        if cell.group == "shadow":
            answers = self._shadows(cell)
        elif cell.group == "unlearned":
            models = self._trained("original", cell.seeds)
            results = self._unlearn(cell, models, self.data)
            answers = _said(self._asked(cell, models), results)
        else:
            answers = self._asked(cell, self._trained(cell.group, cell.seeds))
        answers.save(self.path(cell))

    def _trained(self, group: Group, seeds: Sequence[int]) -> list[LightningModule]:
        view: Literal["train", "retain"] = "train" if group == "original" else "retain"
        return [self.bank.trained(self.recipe, self.data, view, seed) for seed in seeds]

    def _shadows(self, cell: Cell) -> Answers:
        """Models that never saw D_f, after the same method forgot as many of their own samples."""
        models = self._trained("held_out", cell.seeds)
        results = self._unlearn(cell, models, self._without_forgotten(cell.seeds[0]))
        others: dict[Part, Tensor] = {part: index for part, index in self.samples.items() if part != "retain"}
        return _said(asked(self.fresh, self.data, others, models, cell.seeds, 0, self.int8), results)

    def _asked(self, cell: Cell, models: Sequence[LightningModule]) -> Answers:
        seeds = [1000 * seed + self.number for seed in cell.seeds]
        return asked(self.fresh, self.data, self.samples, models, seeds, self.relearn_epochs, self.int8)

    def _without_forgotten(self, seed: int) -> UnlearningDataModule:
        """The data that a held-out reference was trained on, of which as many samples as in D_f are to be forgotten."""
        split, rule = self.data.saved_split(), self.data.forget_rule
        elsewhere = None if rule is None else rule.other_draw(len(split.forget))
        if elsewhere is None:
            raise DataError("What is forgotten was not drawn at random, and to forget other samples would be another task.")
        other = copy.copy(self.data)
        other.saved = split.for_another_request()
        other.draw(seed, elsewhere)
        return other

    def _unlearn(self, cell: Cell, models: Sequence[LightningModule], data: UnlearningDataModule) -> list[list[StageResult]]:
        assert cell.build is not None
        seeds = [1000 * seed + self.number for seed in cell.seeds]
        return run_chain_many(self.fresh, models, data, cell.build, seeds)


def asked(
    fresh: TrainerFactory,
    data: UnlearningDataModule,
    samples: Mapping[Part, Tensor],
    models: Sequence[LightningModule],
    seeds: Sequence[int],
    relearn_epochs: int,
    int8: bool,
) -> Answers:
    """Answers of models as they are, with 8-bit weights, and after retain-only fine-tuning.

    Args:
        fresh: Makes a Trainer.
        data: The data.
        samples: Sample indices by part; all but the retained ones are asked for again with other weights.
        models: Give logits of images; fine-tuned in place where `relearn_epochs` is not 0.
        seeds: Seeds of the fine-tuning, one per model.
        relearn_epochs: Epochs of it; 0: left out.
        int8: Whether to ask with 8-bit weights.

    Returns:
        One row per model.
    """
    answers = answers_of(fresh, models, data, samples)
    again = {part: samples[part] for part in _ASKED_AGAIN if part in samples}
    if int8:
        # Made one by one: copies of all models at once would be held for nothing.
        rounded = (_with_weights(model, rounded_to_int8(model)) for model in models)
        answers = answers.with_parts(answers_of(fresh, rounded, data, again).renamed("int8"))
    if relearn_epochs:
        run_chain_many(partial(fresh, measuring=True), models, data, partial(relearning_stages, relearn_epochs), seeds)
        answers = answers.with_parts(answers_of(fresh, models, data, again).renamed("relearned"))
    return answers


def _with_weights(model: LightningModule, state: dict[str, Tensor]) -> LightningModule:
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    return other


def _said(answers: Answers, results: Sequence[Sequence[StageResult]]) -> Answers:
    """Answers with what making the models took; those to unseen samples only where no stage trained on them."""
    trained = any(result.trained_on_unseen for of_model in results for result in of_model)
    return (answers.without("unseen") if trained else answers).with_costs(_costs(results))


def _costs(results: Sequence[Sequence[StageResult]]) -> dict[str, Tensor]:
    if not results:
        return {}
    return {
        name: torch.tensor([sum(getattr(result, name) for result in of_model) for of_model in results], dtype=torch.float64)
        for name in ("seconds", "work")
    }
