"""Run a chain of stages: checked before the first step, one fresh Trainer per stage, resumed at the unfinished one."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_unlearn import __version__
from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.guard_finite import GuardFinite
from lightning_unlearn.callbacks.keep_pruned import KeepPruned
from lightning_unlearn.callbacks.rank_statistics import RankStatistics
from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.chain.identity import arguments_of
from lightning_unlearn.chain.settings import settings_of
from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.data.views import VIEWS
from lightning_unlearn.exceptions import ChainError, ConfigError
from lightning_unlearn.files import write_atomic, write_text_atomic
from lightning_unlearn.functional.in_use import look_at_calls
from lightning_unlearn.random import at_stage, run_seed
from lightning_unlearn.ranks import is_first
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.training import describe_batches, quiet
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO
from lightning_unlearn.weights.fingerprint import hash_of_weights

__all__ = [
    "StageResult",
    "check_chain",
    "detach",
    "note_of",
    "remove_stage_files",
    "result_of",
    "run_chain",
    "run_stage",
]

log = logging.getLogger(__name__)


# Strategies that lose what a stage leaves behind, or split weights that edits need whole.
_UNFIT = {
    "fork": "its processes end with the fit, and what the stage left is lost",
    "spawn": "its processes end with the fit, and what the stage left is lost",
    "notebook": "its processes end with the fit, and what the stage left is lost",
    "fsdp": "it splits weights that edits need whole",
    "deepspeed": "it splits weights that edits need whole",
    "modelparallel": "it splits weights that edits need whole",
}

# Of methods that choose an epoch, a mixture or targets by what is then measured.
_LOOKED = (
    "The method itself compared forgotten samples with unseen ones, the same that it is judged by: figures of forgotten "
    "against unseen samples are what it aimed at, and no evidence of their own."
)

# One of these a stage that trains must define.
_OVERRIDDEN = ("loss_of", "objective", "training_step")

TrainerFactory = Callable[..., Trainer]


@runtime_checkable
class Summarised(Protocol):
    """What tells figures of itself to the report: a stage, or one of its callbacks."""

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Named groups of figures."""
        ...


@dataclass
class StageResult:
    """What a finished stage took.

    Attributes:
        name: Its class.
        seconds: Wall time.
        work: Image passes: forward 1, backward 2, each by the share of the network that ran.
        summary: What the stage itself reports.
        note: What a reader of its figures must know.
        peak_mb: Most GPU memory that was held, MB of 2**20 bytes; 0 on the CPU.
        trained_on_unseen: Whether it trained on unseen samples, with which nothing can be compared from then on.
        warning: What the report must warn of.
        exact: Whether nothing of the forgotten samples is left after it, whatever ran before.
    """

    name: str
    seconds: float
    work: float
    summary: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""
    peak_mb: float = 0.0
    trained_on_unseen: bool = False
    warning: str = ""
    exact: bool = False


def check_chain(stages: Sequence[UnlearningStage], strategy: str = "auto", accumulate: int = 1) -> None:
    """Refuse a chain that cannot run, before anything is computed.

    Args:
        stages: The chain.
        strategy: Name of the Trainer's strategy.
        accumulate: Its `accumulate_grad_batches`.

    Raises:
        ChainError: There is no stage, something in the list is none, one appears twice, an artifact is missing, unseen
            samples are compared with after a stage trained on them, or strategy or accumulation does not fit.
    """
    if not stages:
        raise ChainError("The chain is empty; needed: at least one stage. Give --stages, or -c method/fine_tune.")
    there: set[str] = set()
    seen: set[int] = set()
    spent = False
    for i, stage in enumerate(stages):
        if not isinstance(stage, UnlearningStage):
            raise ChainError(f"stages[{i}] is a {type(stage).__name__}; needed: an UnlearningStage.")
        if not hasattr(stage, "selector"):
            raise ChainError(
                f"stages[{i}] ({type(stage).__name__}) has not run the constructor of UnlearningStage. Call "
                "super().__init__(**kwargs) in its own."
            )
        if getattr(stage, "view", None) not in VIEWS:
            raise ChainError(
                f"stages[{i}] ({type(stage).__name__}) has the view {getattr(stage, 'view', None)!r}; "
                f"needed: one of {', '.join(VIEWS)}. Set `view` in its class."
            )
        if id(stage) in seen:
            raise ChainError(f"stages[{i}] ({type(stage).__name__}) is in the chain twice; needed: an object of its own.")
        seen.add(id(stage))
        trains = stage.max_epochs > 0 and stage.view != "none"
        if trains and all(getattr(type(stage), name) is getattr(UnlearningStage, name) for name in _OVERRIDDEN):
            raise ChainError(f"stages[{i}] ({type(stage).__name__}) trains, so it must define `objective`, or `loss_of`.")
        _check_accumulation(stage, accumulate)
        missing = [name for name in stage.requires if name not in there]
        if missing:
            raise ChainError(
                f"stages[{i}] ({type(stage).__name__}) needs the artifact {missing[0]!r}, and the stages before it leave "
                f"{sorted(there) or 'none'}. Put a stage that provides it before it."
            )
        there.update(stage.provides)
        spent = spent or stage.trains_on_unseen
        if spent and stage.compares_with_unseen:
            raise ChainError(
                f"stages[{i}] ({type(stage).__name__}) compares with unseen samples, and by then a stage has trained on them. "
                "Put it, or the callback that compares, before that stage, or leave it out."
            )
    for word, reason in _UNFIT.items():
        if word in strategy.lower().replace("_", ""):
            raise ChainError(f"Strategy {strategy!r} cannot be used: {reason}. Needed: auto, ddp, or one device.")


def run_chain(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    stages: Sequence[UnlearningStage],
    folder: Path | None = None,
) -> list[StageResult]:
    """Run all stages on a model, in place.

    Args:
        fresh: Makes a Trainer for one stage from `max_epochs`, `max_steps` and `callbacks`.
        model: Gives logits of images.
        data: The shared data.
        stages: The chain.
        folder: Where finished stages are kept until the chain has ended, so that a killed run goes on; None: nowhere.

    Returns:
        One result per stage.

    Raises:
        ConfigError: The folder holds finished stages of another run, or damaged ones.
    """
    look_at_calls(model, data.example())
    for stage in stages:
        stage.check(model, data)
    artifacts = Artifacts()
    results: list[StageResult] = []
    done = _finished(folder, len(stages))
    identity = {} if folder is None else _identity(fresh, model, data, stages)
    if folder is not None and done:
        saved = AtomicCheckpointIO().load_checkpoint(folder / f"stage{done - 1}.ckpt")
        differing = [name for name in identity if identity[name] != saved["run"].get(name)]
        if differing:
            raise ConfigError(
                f"{folder} holds the beginning of another run: its {differing[0]} differ. Start it again as it was, choose "
                "another folder, or remove its stage files."
            )
        model.load_state_dict(saved["state_dict"])
        artifacts = Artifacts(saved["artifacts"])
        results = [_read_result(folder, i) for i in range(done)]
    try:
        for i, stage in enumerate(stages[done:], done):
            results.append(run_stage(fresh, model, data, stage, artifacts, i))
            if folder is not None:
                log.info("stage %d of %d, %s: %.1f s", i + 1, len(stages), results[-1].name, results[-1].seconds)
            if folder is not None and is_first():
                # The result first: the checkpoint is what says that the stage has ended.
                write_text_atomic(folder / f"stage{i}.json", json.dumps(asdict(results[-1])))
                saved = {"run": identity, "state_dict": model.state_dict(), "artifacts": artifacts.state_dict()}
                write_atomic(folder / f"stage{i}.ckpt", partial(torch.save, saved))
    finally:
        artifacts.drop_features()
    return results


def run_stage(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    stage: UnlearningStage,
    artifacts: Artifacts,
    position: int,
) -> StageResult:
    """Run one stage of a chain on a model, in place.

    Args:
        fresh: See `run_chain`.
        model: Gives logits of images.
        data: The shared data.
        stage: The stage.
        artifacts: What earlier stages left; it leaves its own there.
        position: Its number in the chain, from 0; its random draws depend on it.

    Returns:
        What it took.

    Raises:
        KeyboardInterrupt: Somebody ended it; Lightning only ends the fit.
    """
    name = type(stage).__name__
    before = data.serve(stage.view, *stage.sizes(data), salt=f"{position}/{name}")
    begin = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with at_stage(position):
            trainer = _fit(fresh, model, data, stage, artifacts)
    finally:
        data.serving = before
        detach(model)
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    if trainer.interrupted:
        raise KeyboardInterrupt
    return result_of(stage, data, seconds, _work_of_all_ranks(stage, trainer), peak)


def result_of(
    stage: UnlearningStage, data: UnlearningDataModule, seconds: float, work: float, peak_mb: float = 0.0
) -> StageResult:
    """What a stage took and found, and what the callbacks that it was given did.

    Args:
        stage: After its fit.
        data: What it ran on.
        seconds: See `StageResult`.
        work: See `StageResult`.
        peak_mb: See `StageResult`.

    Returns:
        The result.
    """
    told = [stage, *(callback for callback in stage.callbacks if isinstance(callback, Summarised))]
    summary = {name: dict(values) for of in told for name, values in of.summary().items()}
    of_stage = (note_of(stage, data), peak_mb, stage.trains_on_unseen, stage.warning, stage.exact)
    return StageResult(type(stage).__name__, seconds, work, summary, *of_stage)


def note_of(stage: UnlearningStage, data: UnlearningDataModule) -> str:
    """What a reader must know about the figures of a stage.

    Args:
        stage: After its fit, or where its own note does not depend on one.
        data: What it ran on.

    Returns:
        Its own note, and of one that compares with unseen samples that it does; empty where there is nothing to say.
    """
    return " ".join(text for text in (stage.note, _LOOKED * stage.looks_at_unseen(data)) if text)


def remove_stage_files(folder: Path) -> None:
    """Remove what finished stages left: a run that has ended needs it no more, and it tells of forgotten samples.

    Args:
        folder: The folder of the run.
    """
    for path in [*folder.glob("stage*.ckpt"), *folder.glob("stage*.json")]:
        path.unlink()


def detach(model: nn.Module) -> None:
    """Let a model forget the Trainer that it was last part of, so that it can be copied and used on.

    Args:
        model: The model.
    """
    for module in model.modules():
        if isinstance(module, LightningModule):
            module.trainer = None


def _fit(
    fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule, stage: UnlearningStage, artifacts: Artifacts
) -> Trainer:
    """Fit a stage to a model; the Trainer that did."""
    stage.bind(model, artifacts)
    try:
        stage.before_fit(fresh, data)
        epochs, steps = stage.length(data)
        links = [SeedEachStep(), GuardFinite(), RankStatistics(), KeepPruned(), *stage.callbacks]
        with quiet():
            trainer = fresh(max_epochs=epochs, max_steps=steps, callbacks=links)
            _check_accumulation(stage, trainer.accumulate_grad_batches)
            stage.attach(trainer)
            trainer.fit(stage, datamodule=data)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    finally:
        stage.release()
    return trainer


def _check_accumulation(stage: UnlearningStage, batches: int) -> None:
    if stage.steps_each_batch and batches != 1:
        raise ChainError(
            f"{type(stage).__name__}: accumulate_grad_batches is {batches}; needed: 1, since it counts its passes in batches. "
            "Raise batch_size instead."
        )


def _finished(folder: Path | None, stages: int) -> int:
    """How many stages of the chain have ended."""
    if folder is None:
        return 0
    return max((i + 1 for i in range(stages) if (folder / f"stage{i}.ckpt").is_file()), default=0)


def _identity(
    fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule, stages: Sequence[UnlearningStage]
) -> dict[str, str]:
    """What a run must have in common with the one that it goes on with."""
    parts: tuple[Part, ...] = ("retain", "forget", "unseen")
    return {
        "weights": hash_of_weights(model),
        "samples": " ".join(data.fingerprint(part) for part in parts),
        "batches": describe_batches(data),
        "arguments of the Trainer": " ".join(arguments_of(fresh)),
        "versions of this package": __version__,
        "stages": settings_of(stages),
        "seeds": str(run_seed()),
    }


def _work_of_all_ranks(stage: UnlearningStage, trainer: Trainer) -> float:
    if trainer.world_size == 1:
        return stage.work.total
    total = torch.tensor(stage.work.total, dtype=torch.float64, device=trainer.strategy.root_device)
    return float(sum_over_ranks(total, trainer))


def _read_result(folder: Path, i: int) -> StageResult:
    path = folder / f"stage{i}.json"
    try:
        return StageResult(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); needed: what the finished stage took, as it was saved. Remove the stage files "
            f"(stage*) in {folder} and resume the run: its stages run again."
        ) from error
