"""Train the slices of an ensemble that have no checkpoint yet, shard by shard, each in a Lightning fit of its own."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lightning_unlearn.callbacks.guard_finite import GuardFinite
from lightning_unlearn.callbacks.rank_statistics import RankStatistics
from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.processes import Task, available_processes, run_tasks
from lightning_unlearn.random import run_seed, seeded
from lightning_unlearn.ranks import barrier, first_says, is_first, lock_on_first
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.sisa.plan import Slice, SlicePlan, cut_slices
from lightning_unlearn.sisa.recipe import SliceRecipe, epochs_of_slices
from lightning_unlearn.sisa.store import FOLDER, Manifest, SliceStore
from lightning_unlearn.training import quiet
from lightning_unlearn.weights.checkpoint import save_weights
from lightning_unlearn.weights.trained_on import Kept

__all__ = ["fit_slices", "plan_slices", "train_missing"]

log = logging.getLogger(__name__)


def fit_slices(trainer: FreshTrainer, model: Sisa, data: object) -> None:
    """Train an ensemble, or go on with its training; what `UnlearningTrainer.fit` does with a `Sisa`.

    `last.ckpt`, its `split.json` and the folder `slices` go where the Trainer keeps its checkpoints.

    Args:
        trainer: Its length is that of a training without slices; each slice gets `epochs_of_slices`.
        model: The ensemble; its members are drawn anew.
        data: The data; what the view `train` or `retain` holds is trained on.

    Raises:
        ConfigError: There is no length, or one by the clock, no place for checkpoints, a callback that would be left out, or
            another training lies in that place.
        DataError: The data are of another kind.
    """
    if not isinstance(data, UnlearningDataModule):
        raise DataError(f"The data are a {type(data).__name__}; needed: an UnlearningDataModule, given as datamodule.")
    if not trainer.max_epochs or trainer.max_epochs < 1 or trainer.max_steps != -1:
        raise ConfigError(
            f"max_epochs is {trainer.max_epochs} and max_steps {trainer.max_steps}; a Sisa needs epochs, which its slices "
            "share. Give --trainer.max_epochs 40, and no steps."
        )
    if data.serving.view not in ("train", "retain"):
        raise ConfigError(f"The view is {data.serving.view!r}; a Sisa is trained on 'train' or 'retain'. Give --data.view.")
    if "max_time" in trainer.stage_arguments:
        raise ConfigError(
            f"max_time is {trainer.stage_arguments['max_time']}: where the clock ends a training, the next on the same samples "
            "gives other weights, and no deletion would be exact. Leave it out, and give fewer max_epochs."
        )
    keeper = trainer.checkpoint_callback
    if keeper is None:
        raise ConfigError("A Sisa cannot delete samples without its checkpoints. Leave enable_checkpointing on.")
    if trainer.recipe_callbacks:
        name = type(trainer.recipe_callbacks[0]).__name__
        raise ConfigError(
            f"{name} changes what a model is trained to, and the slices of a Sisa are trained without. Leave it out."
        )
    folder = Path(getattr(keeper, "dirpath", None) or Path(trainer.default_root_dir, "checkpoints"))
    store = SliceStore(folder / FOLDER)
    epochs = epochs_of_slices(trainer.max_epochs, model.slices)
    recipe = SliceRecipe.of(model, data, trainer, run_seed(), epochs, data.batch_size)
    with lock_on_first(folder, again=True):
        if store.exists:
            manifest = store.read()
            manifest.recipe.check_same(recipe, folder)
            # Slices are named by what was recorded.
            recipe = manifest.recipe
            if (successor := store.successor) is not None:
                raise ConfigError(f"Samples of {folder} were deleted: {successor.folder.parent} took its place. Fit elsewhere.")
        plan = plan_slices(trainer.fresh, data, recipe, store, data.part(data.serving.view)[1])
        if is_first() and not store.exists:
            store.write(Manifest(recipe))
        log.info("%s", plan.text())
        train_missing(trainer.fresh, model, data, recipe, plan, store)
        if is_first():
            data.saved_split(everything_trained=data.serving.view == "train").save(folder / "split.json")
            save_weights(folder / "last.ckpt", model.state_dict(), dict(model.hparams))
    if len(data.part("unseen")[1]):
        with quiet():
            trainer.validate(model, datamodule=data, verbose=False)


def plan_slices(
    fresh: Callable[..., Trainer],
    data: UnlearningDataModule,
    recipe: SliceRecipe,
    store: SliceStore,
    index: torch.Tensor,
) -> SlicePlan:
    """What has to be trained.

    Args:
        fresh: Makes a Trainer.
        data: The data.
        recipe: How slices are trained.
        store: Where the checkpoints of those lie that need no training.
        index: Samples to train on, (N,), sorted, int64.

    Returns:
        The plan.

    Raises:
        DataError: A slice has fewer samples than there are ranks.
    """
    slices = cut_slices(recipe, data.samples, index)
    with quiet():
        ranks = fresh(measuring=True).world_size
    small = next((s for shard in slices for s in shard if 0 < len(s.index) < ranks), None)
    if small is not None:
        raise DataError(
            f"Slice {small.number + 1} of shard {small.shard} has {len(small.index)} samples for {ranks} ranks; needed: one "
            "for each. Use fewer devices, or train anew with fewer shards or slices."
        )
    for shard in slices:
        if not len(shard[-1].index):
            log.warning("Shard %d holds no sample; it has no vote.", shard[-1].shard)
    return SlicePlan(slices, _missing(slices, store), recipe.epochs)


def train_missing(
    fresh: Callable[..., Trainer],
    model: Sisa,
    data: UnlearningDataModule,
    recipe: SliceRecipe,
    plan: SlicePlan,
    store: SliceStore,
) -> None:
    """Train what the store lacks, keep a checkpoint after each slice, and give the ensemble the weights of all last slices.

    Args:
        fresh: Makes a Trainer.
        model: The ensemble; on the CPU and in eval mode afterwards.
        data: The data.
        recipe: How slices are trained.
        plan: All slices.
        store: Where checkpoints lie.
    """
    tasks = []
    lacking = _missing(plan.slices, store)
    for shard in sorted({slice.shard for slice in lacking}):
        missing = [slice for slice in lacking if slice.shard == shard]
        work = float(sum(len(slice.index) for slice in missing))
        run = partial(_train_shard, fresh, model, data, recipe, plan.slices[shard], missing, store)
        tasks.append(Task(f"shard {shard}", work, run))
    with quiet():
        alone = model.processes == 1 or fresh(measuring=True).world_size > 1
    run_tasks(tasks, 1 if alone else min(model.processes, available_processes()), quiet=True)
    for shard, slices in enumerate(plan.slices):
        # Assigned, not copied: a training in float64 leaves such weights.
        model.network.members[shard].load_state_dict(store.load(slices[-1].name), assign=True)
        model.network.has_samples[shard] = len(slices[-1].index) > 0
    if is_first():
        store.keep_only([slice.name for shard in plan.slices for slice in shard])
    model.cpu().eval()


def _missing(slices: Sequence[Sequence[Slice]], store: SliceStore) -> list[Slice]:
    """The slices without a checkpoint, the same on all ranks: each would look when the first may have saved one already."""
    return [slice for shard in slices for slice in shard if not first_says(store.has(slice.name))]


def _train_shard(
    fresh: Callable[..., Trainer],
    model: Sisa,
    data: UnlearningDataModule,
    recipe: SliceRecipe,
    slices: Sequence[Slice],
    missing: Sequence[Slice],
    store: SliceStore,
) -> None:
    """Train the missing slices of a shard, each from the one before."""
    network = model.network.members[slices[0].shard]
    for slice in missing:
        begin = time.perf_counter()
        # After empty slices the draw again, not their checkpoint: before the first fit sets the group up, the first rank may
        # not have written it yet.
        if slice.number == 0 or not len(slices[slice.number - 1].index):
            model.redraw(slice.shard, recipe.seed_of(slice.shard))
        else:
            network.load_state_dict(store.load(slices[slice.number - 1].name), assign=True)
        if len(slice.index):
            _fit(fresh, model, data, recipe, slice)
        if is_first():
            store.save(slice.name, network, Kept.of(data.samples, slice.index, data.dataset))
        barrier()
        where = (slice.shard, slice.number + 1, len(slices), len(slice.index), time.perf_counter() - begin)
        log.info("shard %d, slice %d of %d: %d samples, %.1f s", *where)


def _fit(fresh: Callable[..., Trainer], model: Sisa, data: UnlearningDataModule, recipe: SliceRecipe, slice: Slice) -> None:
    """One fit on the samples of a slice and those before it."""
    links = [SeedEachStep(), RankStatistics(), GuardFinite(of_stage=False)]
    member = model.member(slice.shard).train()
    # Always the view `train`, for which the order is drawn by name: an original and its retrained reference share slices.
    before = data.serve("train", recipe.batch_size, salt=f"sisa/{slice.shard}/{slice.number}", only=slice.index)
    try:
        with quiet(), seeded(recipe.seed_of(slice.shard)):
            trainer = fresh(max_epochs=recipe.epochs, callbacks=links, measuring=True)
            trainer.fit(member, datamodule=data)
    finally:
        data.serving = before
        member.cpu()
    if trainer.interrupted:
        raise KeyboardInterrupt
