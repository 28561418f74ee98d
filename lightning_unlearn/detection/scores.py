"""Scores of every training sample, from models in the bank: how memorised it is, and how much of it a method leaves behind.

The training set is cut into folds, at random, several times; for every fold a model is trained on the others. Each sample
then has models that know it and models that do not. Two folds give the halves of Carlini et al. (IEEE S&P 2022), the most
models without a sample for the money; ten folds keep the training set, and what is forgotten, at their usual size.
"""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.run import TrainerFactory, check_chain, run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.tables import write_rows
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.functional.memorisation import memorisation
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Fold", "SampleScores", "sample_scores"]

log = logging.getLogger(__name__)


class Fold(ForgetRule):
    """One of several random parts of equal size (by one at most), which together are the training set.

    Args:
        number: Which part, 0 ... folds - 1.
        folds: How many parts.
    """

    def __init__(self, number: int, folds: int) -> None:
        self.number = number
        self.folds = folds

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Choose samples; see `ForgetRule.select`."""
        shuffled = candidates[order(samples.hashes[candidates], seed, "folds")]
        return Selection(torch.tensor_split(shuffled, self.folds)[self.number].sort().values, [])

    def describe(self) -> str:
        """One plain line."""
        return f"fold {self.number + 1} of {self.folds}"


@dataclass(frozen=True)
class SampleScores:
    """Scores of training samples.

    Attributes:
        keys: Their keys.
        memorisation: See `functional.memorisation`, (N,), float64, -1 ... 1.
        leak: Margin of the model that unlearned the sample's fold, minus that of the model trained without this fold, mean over
            repeats, (N,), float64, nats; high: still known. None where no method was given.
    """

    keys: list[str]
    memorisation: Tensor
    leak: Tensor | None = None

    def save(self, path: str | Path) -> None:
        """Write a table that the forget rule `ByScore` reads.

        Args:
            path: A `.csv` file: `key`, `memorisation` and, where there is one, `leak`, with all digits.
        """
        columns = {"memorisation": self.memorisation, **({} if self.leak is None else {"leak": self.leak})}
        found = zip(self.keys, *(column.tolist() for column in columns.values()), strict=True)
        write_rows(
            path,
            [
                ["key", *columns],
                *([key, *("" if value != value else repr(value) for value in values)] for key, *values in found),
            ],
        )


def sample_scores(
    fresh: TrainerFactory,
    recipe: Recipe,
    data: UnlearningDataModule,
    bank: Bank,
    folds: int = 2,
    repeats: int = 4,
    method: Callable[[], list[UnlearningStage]] | None = None,
) -> SampleScores:
    """Score every training sample, the unseen part excepted, by folds * repeats models.

    The leak is the simple form of a worst-case forget set: each sample by what a base method leaves of it as one of a random
    fold. The search of Fan et al. (ECCV 2024) for the set that is hardest *together* is not done.

    Args:
        fresh: Makes a Trainer.
        recipe: How models are trained.
        data: The data; its own forget rule does not count, and holds again afterwards.
        bank: Where the models are found, or kept. Repeat r has the seed (folds + 1) r for its original, which only the leak
            needs, and the following ones for its folds.
        folds: Parts of the training set, at least 2. Each model is trained on all but one.
        repeats: Random partitions; every sample has that many models that were not trained on it.
        method: Makes a base method's stages, for the leak: each fold is unlearned from the repeat's original.

    Returns:
        The scores.

    Raises:
        ConfigError: There are fewer than two folds, more folds than samples, or no repeat.
    """
    samples, index = data.part("train")
    if not 2 <= folds <= len(index) or repeats < 1:
        raise ConfigError(
            f"folds is {folds} and repeats is {repeats}; needed: 2 to {len(index)} folds (training samples), and a repeat."
        )
    if method is not None:
        check_chain(method())
    seed_before, rule_before = data.forget_seed, data.forget_rule
    right = torch.empty(folds * repeats, len(index), dtype=torch.bool)
    member = torch.empty_like(right)
    leaks = torch.zeros(len(index), dtype=torch.float64)
    try:
        for number in range(folds * repeats):
            repeat, fold = divmod(number, folds)
            seed = (folds + 1) * repeat
            begin = time.perf_counter()
            data.draw(repeat, Fold(fold, folds))
            left_out = torch.searchsorted(index, data.part("forget")[1])
            without = bank.trained(recipe, data, "retain", seed + 1 + fold)
            outputs = collect_outputs(fresh, without, data, ["train"])["train"]
            right[number] = outputs.correct
            member[number] = True
            member[number, left_out] = False
            if method is not None:
                unlearned = copy.deepcopy(bank.trained(recipe, data, "train", seed))
                seed_everything(1000 * seed + fold, verbose=False)
                run_chain(fresh, unlearned, data, method())
                margins = collect_outputs(fresh, unlearned, data, ["forget"])["forget"].margins
                leaks[left_out] += (margins - outputs.margins[left_out]) / repeats
            took = time.perf_counter() - begin
            log.info("scores: model %d of %d, %.1f s", number + 1, folds * repeats, took)
    finally:
        data.forget_rule = rule_before
        data.draw(seed_before)
    keys = [samples.keys[i] for i in index.tolist()]
    return SampleScores(keys, memorisation(right, member), None if method is None else leaks)
