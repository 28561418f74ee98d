"""Filling a bank: what is missing of many originals or references is trained at once, in groups, over processes."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning.pytorch import LightningModule

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.bank.together import Way, find_way, fit_together
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.exceptions import RunError
from lightning_unlearn.files import lock_folder
from lightning_unlearn.processes import Task, available_processes, run_tasks
from lightning_unlearn.report.labels import seconds

__all__ = ["train_missing"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """What is to be trained, and how."""

    bank: Bank
    recipe: Recipe
    data: UnlearningDataModule
    view: View
    way: Way

    def entry(self, seed: int) -> tuple[LightningModule, str, Path]:
        """The untrained model of a seed, its content and the folder of its entry."""
        model = self.recipe.build(seed)
        content = self.bank.content(self.recipe, model, self.data, self.view, seed)
        return model, content, self.bank.entry(content)

    def train(self, seeds: Sequence[int]) -> None:
        """Train a group at once and keep it; what another process is at, or has done meanwhile, is left out."""
        if len(seeds) == 1:
            if _is_free(self.entry(seeds[0])[2]):
                self.bank.trained(self.recipe, self.data, self.view, seeds[0])
            return
        with contextlib.ExitStack() as locks:
            mine: dict[int, tuple[LightningModule, str, Path]] = {}
            for seed in seeds:
                found = self.entry(seed)
                try:
                    locks.enter_context(lock_folder(found[2]))
                except RunError:
                    continue  # `Bank.trained` waits for it, or says why the folder cannot be used
                if not (found[2] / "entry.json").is_file() or self.bank.verified(found[2], found[1]) is None:
                    mine[seed] = found
            if not mine:
                return
            models = [model for model, _, _ in mine.values()]
            arguments = (self.data, self.view, list(mine), self.recipe.max_epochs, self.recipe.trainer, self.way.how)
            fit_together(models, *arguments)
            self.bank.record(self.data, self.view)
            for model, content, entry in mine.values():
                self.bank.keep(entry, content, model)


def _is_free(entry: Path) -> bool:
    """Whether no other process is at an entry: waiting for it would leave the next one to nobody."""
    try:
        with lock_folder(entry):
            return True
    except RunError:
        return False


def train_missing(
    bank: Bank, recipe: Recipe, data: UnlearningDataModule, view: View, seeds: Sequence[int], processes: int | None = None
) -> None:
    """Train and keep what a bank lacks; each group is kept as soon as it is finished, so that a killed run goes on.

    Groups of models are trained as one module, equal to what `Bank.trained` trains up to the rounding of float arithmetic; what
    cannot be trained together is trained one after another, and the log says why. It says beforehand what it will take, and
    after each group what is left.

    Args:
        bank: The bank.
        recipe: How they are trained.
        data: The data.
        view: `train` for originals, `retain` for references.
        seeds: Their seeds.
        processes: How many work at once; None: one per core on a CPU, else one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return  # ranks train each model together
    unknown = Way("loop", 1, 0.0)
    job = _Job(bank, recipe, data, view, unknown)
    missing: list[int] = []
    models: list[LightningModule] = []
    for seed in dict.fromkeys(seeds):
        model, content, entry = job.entry(seed)
        if bank.verified(entry, content) is None:
            missing.append(seed)
            models.append(model)
    if len(missing) < 2:
        return
    on_cpu = recipe.trainer.get("accelerator") == "cpu"
    workers = processes or (available_processes() if on_cpu else 1)
    apart = Way("loop", 1, 0.0, f"{recipe.callbacks[0]!r} takes part in each training") if recipe.callbacks else None
    way = apart or find_way(models, data, recipe.trainer)
    job = _Job(bank, recipe, data, view, way)
    # Groups of one size, as many as the processes can share out evenly.
    rounds = -(-len(missing) // (way.size * workers))
    count = min(len(missing), rounds * workers) if way.size > 1 else len(missing)
    groups = [missing[len(missing) * i // count : len(missing) * (i + 1) // count] for i in range(count)]
    what = "originals" if view == "train" else "references"
    before = data.serve(view)
    steps = recipe.max_epochs * len(data.train_dataloader())
    data.serving = before
    expected = f"about {seconds(way.seconds * steps * len(missing) / workers)}" if way.seconds else "time unknown"
    form = f"{len(groups[0])} at once ({way.how})" if way.size > 1 else f"one after another ({way.reason})"
    log.info("training %d %s for the bank, %s, processes: %d; %s", len(missing), what, form, workers, expected)
    names = [f"{what} {group[0]}" + f" to {group[-1]}" * (len(group) > 1) for group in groups]
    tasks = [Task(name, len(group), partial(job.train, group)) for name, group in zip(names, groups, strict=True)]
    run_tasks(tasks, workers)
