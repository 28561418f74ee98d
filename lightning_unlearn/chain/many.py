"""Run a chain of stages on many models at once, each as `run_chain` would."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.guard_finite import GuardFinite
from lightning_unlearn.chain.run import StageResult, TrainerFactory, detach, result_of, run_stage
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError, RunError
from lightning_unlearn.functional.ensemble import ELEMENTWISE, LARGEST_GROUP, How, fastest, stack
from lightning_unlearn.functional.in_use import look_at_calls
from lightning_unlearn.random import at_stage
from lightning_unlearn.schedule import build_optimizer, with_schedule
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.cached import CachedStage
from lightning_unlearn.training import quiet

__all__ = ["run_chain_many"]

log = logging.getLogger(__name__)

Stages = Sequence[UnlearningStage]
# What a step is made of; a stage with one of its own does something else than the shared step.
_OF_A_STEP = ("training_step", "configure_optimizers", "before_fit", "logits", "run", "backward", "optimizer_step")
# Forms that were found fastest in this process, by what decides it.
_FASTEST: dict[str, How] = {}


class _CannotShareAFitError(RuntimeError):
    """Why models must be unlearned one after another."""


class _FeaturesTooLargeError(_CannotShareAFitError):
    """What all of them would keep at once does not fit."""


def run_chain_many(
    fresh: TrainerFactory,
    models: Sequence[nn.Module],
    data: UnlearningDataModule,
    build_method: Callable[[], list[UnlearningStage]],
    seeds: Sequence[int],
) -> list[list[StageResult]]:
    """Unlearn K models, in place: each becomes what `seed_everything(seed)` and `run_chain` make of it, up to rounding.

    Stage by stage. A stage that defines `loss_of` and not `objective` (`FineTune`, `ImitateUnseen`), without callbacks of its
    own, trains all models in one fit, as one module; weight edits, estimates and every other stage run model by model, as does
    everything where a Trainer clips gradients, has callbacks of the user's or several devices. Runs in this process: to use
    several, share out the models.

    Args:
        fresh: See `run_chain`.
        models: K models of one kind.
        data: The shared data.
        build_method: Makes the stages of the method; called once per model or more.
        seeds: K seeds of the runs.

    Returns:
        The results of each model's stages; seconds of a shared fit are shared out evenly.

    Raises:
        ChainError: There are not as many seeds as models.
    """
    if len(seeds) != len(models):
        raise ChainError(f"run_chain_many: {len(models)} models and {len(seeds)} seeds; needed: one seed per model.")
    results: list[list[StageResult]] = []
    count = -(-len(models) // LARGEST_GROUP)
    for i in range(count):
        group = slice(len(models) * i // count, len(models) * (i + 1) // count)
        results += _run_group(fresh, models[group], data, build_method, seeds[group])
    return results


def _run_group(
    fresh: TrainerFactory,
    models: Sequence[nn.Module],
    data: UnlearningDataModule,
    build_method: Callable[[], list[UnlearningStage]],
    seeds: Sequence[int],
) -> list[list[StageResult]]:
    for model in models:
        look_at_calls(model, data.example())
    chains = [build_method() for _ in models]
    artifacts = [Artifacts() for _ in models]
    results: list[list[StageResult]] = [[] for _ in models]
    for position in range(len(chains[0])):
        stages = [chain[position] for chain in chains]
        try:
            taken = _run_together(fresh, models, data, stages, artifacts, seeds, position)
        except (_CannotShareAFitError, RunError) as reason:
            # What is not finite in one model ends the fit of all: alone, it ends only its own.
            log.debug("stage %d, %s: one model after another: %s", position + 1, type(stages[0]).__name__, reason)
            taken = []
            for model, left, seed in zip(models, artifacts, seeds, strict=True):
                seed_everything(seed, verbose=False)
                taken.append(run_stage(fresh, model, data, build_method()[position], left, position))
                if isinstance(reason, _FeaturesTooLargeError):
                    # Kept for all of them they would be as large; a later stage computes them again.
                    left.drop_features()
        for mine, result in zip(results, taken, strict=True):
            mine.append(result)
    for left in artifacts:
        left.drop_features()
    return results


def _run_together(
    fresh: TrainerFactory,
    models: Sequence[nn.Module],
    data: UnlearningDataModule,
    stages: Stages,
    artifacts: Sequence[Artifacts],
    seeds: Sequence[int],
    position: int,
) -> list[StageResult]:
    """One fit for all models."""
    first = stages[0]
    name = type(first).__name__
    _check_stages(stages)
    if any("pruned" in left for left in artifacts):
        raise _CannotShareAFitError("each model has pruned weights of its own")
    begin = time.perf_counter()
    before = data.serve(first.view, *first.sizes(data), f"{position}/{name}", seeds=seeds)
    with at_stage(position), ExitStack() as undo:
        undo.callback(setattr, data, "serving", before)
        for stage, model, left in zip(stages, models, artifacts, strict=True):
            stage.bind(model, left)
            undo.callback(detach, model)
            undo.callback(stage.release)
        lengths = {stage.length(data) for stage in stages}
        if len(lengths) > 1:
            raise _CannotShareAFitError("they take different numbers of steps")
        epochs, steps = lengths.pop()
        together = _Together(stages, seeds)
        with quiet():
            trainer = fresh(max_epochs=epochs, max_steps=steps, callbacks=[GuardFinite(of_stage=False)])
            _check_trainer(trainer)
            try:
                trainer.fit(together, datamodule=data)
            except _FeaturesTooLargeError:
                raise
            except Exception:
                # What was computed is in no count of work.
                for left in artifacts:
                    left.drop_features()
                raise
        if trainer.interrupted:
            raise KeyboardInterrupt
        together.hand_back()
    seconds = (time.perf_counter() - begin) / len(stages)
    return [result_of(stage, data, seconds, stage.work.total) for stage in stages]


class _Together(LightningModule):
    """Trains the networks of K bound stages as one module on the sum of their losses.

    Args:
        stages: Bound to their models.
        seeds: One per model.
    """

    def __init__(self, stages: Stages, seeds: Sequence[int]) -> None:
        super().__init__()
        # Not as parts of this module: their networks are not what is trained.
        self._stages = tuple(stages)
        self._seeds = tuple(seeds)
        self._networks: tuple[nn.Module, ...] = ()

    def setup(self, stage: str) -> None:
        """Let every stage prepare (targets, cached features), and make one module of what they train."""
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
        for each in self._stages:
            each.trainer = trainer
            trainer.precision_plugin.convert_module(each).to(trainer.strategy.root_device)
        first = self._stages[0]
        if isinstance(first, CachedStage) and (large := first.too_large_together(len(self._stages))) is not None:
            raise _FeaturesTooLargeError(f"for {len(self._stages)} models {large}")
        for each, seed in zip(self._stages, self._seeds, strict=True):
            seed_everything(seed, verbose=False)
            each.on_fit_start()
        self._networks = tuple(_trained_network(each) for each in self._stages)
        loader = data.train_dataloader()
        pieces = next(iter(loader.loader.plan.steps(0)))
        size = sum(len(piece.index) for piece in pieces.values())
        if isinstance(first, CachedStage) and first.cached is not None:
            index = next(iter(first.cached_parts().values()))
            example = first.features(index[torch.arange(size) % len(index)].to(first.device))
        else:
            example = trainer.precision_plugin.convert_input(data.example(size).to(first.device))
        try:
            # In the precision of the steps: features that are kept may be of it, and it decides what is fastest.
            with trainer.precision_plugin.forward_context():
                form = _fastest(self._networks, example)
            self.ensemble = stack(self._networks, example, form)
        except ValueError as error:
            raise _CannotShareAFitError(str(error)) from error

    def training_step(self, batch: Batch | dict[str, Batch], batch_idx: int) -> Tensor:
        """The sum of the losses of all models."""
        parts = {"": batch} if isinstance(batch, Batch) else batch
        logits = self.ensemble(torch.cat([self._input(part) for part in parts.values()], dim=1))
        losses = []
        for k, stage in enumerate(self._stages):
            mine = {
                name: part._replace(input=part.input[k], target=part.target[k], index=part.index[k])
                for name, part in parts.items()
            }
            losses.append(stage.loss_of(logits[k], mine[""] if isinstance(batch, Batch) else mine))
            share = stage.cached.share if isinstance(stage, CachedStage) and stage.cached is not None else 1.0
            images = logits.shape[1] * share
            stage.work.forward += images
            stage.work.backward += images * min(1.0, stage.work.backward_share / share)
        return torch.stack(losses).sum()

    def configure_optimizers(self) -> OptimizerConfig | OptimizerLRSchedulerConfig:
        """The optimiser and the schedule of the stages, over the weights of all models."""
        first = self._stages[0]
        trained = [p for p in self.ensemble.parameters() if p.requires_grad]
        return with_schedule(self, first.make_optimizer(first.optimizer, trained), first.schedule)

    def hand_back(self) -> None:
        """Give the models what they have learnt, and let every stage end."""
        self.cpu()
        for stage, network, found in zip(self._stages, self._networks, self.ensemble.unstack(), strict=True):
            network.load_state_dict(found.state_dict())
            stage.on_fit_end()

    def _input(self, batch: Batch) -> Tensor:
        """(K, B, ...): images, or the cached features of each model."""
        rows = [
            stage.features(index, batch.epoch)
            for stage, index in zip(self._stages, batch.index, strict=True)
            if isinstance(stage, CachedStage) and stage.cached is not None
        ]
        return torch.stack(rows) if rows else batch.input


def _trained_network(stage: UnlearningStage) -> nn.Module:
    """What a bound stage runs in a step: its classifier's network, or the end of it that features enter."""
    # Work is counted by `_Together`.
    called = stage.uncounted()
    return called.network if type(called) is Classifier else called


def _fastest(networks: Sequence[nn.Module], example: Tensor) -> How:
    """The fastest form; looked for once for networks of one kind."""
    flags = [(p.requires_grad, p.dtype) for p in networks[0].parameters()]
    key = (
        f"{networks[0]} {flags} {[m.training for m in networks[0].modules()]} {len(networks)} {example.shape} {example.device}"
    )
    if key not in _FASTEST:
        _FASTEST[key] = fastest(networks, example)
    return _FASTEST[key]


def _check_stages(stages: Stages) -> None:
    kind = type(stages[0])
    if len(stages) < 2:
        raise _CannotShareAFitError("there is only one")
    if kind.objective is not UnlearningStage.objective or kind.loss_of is UnlearningStage.loss_of:
        raise _CannotShareAFitError(f"{kind.__name__} defines no loss of logits alone")
    known: type = CachedStage if issubclass(kind, CachedStage) else UnlearningStage
    names = [*_OF_A_STEP, *(name for name in dir(Callback) if name.startswith(("on_train", "on_before", "on_after")))]
    own = [name for name in names if getattr(kind, name, None) is not getattr(known, name, None)]
    if own:
        raise _CannotShareAFitError(f"{kind.__name__} has its own {own[0]}")
    if stages[0].callbacks or stages[0].configure_callbacks():
        raise _CannotShareAFitError(f"{kind.__name__} has callbacks, which look at one model")
    optimizer = type(build_optimizer(stages[0].optimizer, [nn.Parameter(torch.zeros(1))]))
    if optimizer not in ELEMENTWISE:
        raise _CannotShareAFitError(f"{optimizer.__name__} is not known to treat every weight by itself")


def _check_trainer(trainer: Trainer) -> None:
    if trainer.world_size > 1:
        raise _CannotShareAFitError("there are several devices")
    if trainer.gradient_clip_val or getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise _CannotShareAFitError("the Trainer clips or scales gradients, which couples them")
    foreign = [c for c in trainer.callbacks if not isinstance(c, GuardFinite | ProgressBar)]  # type: ignore[attr-defined]  # set by Lightning
    if foreign:
        raise _CannotShareAFitError(f"the Trainer's {type(foreign[0]).__name__} looks at one model")
