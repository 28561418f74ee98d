"""Fits that run inside other work: a fresh Trainer, no files, no noise."""

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Collection, Generator, Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from lightning_unlearn.callbacks.rank_statistics import RankStatistics
from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.schedule import build_optimizer
from lightning_unlearn.sources import Code, hash_of_sources
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

__all__ = [
    "describe",
    "describe_batches",
    "describe_optimizer",
    "fit_quietly",
    "optimizer_class",
    "plain_attributes",
    "quiet",
    "stable_repr",
]

TrainerArguments = Mapping[str, object]

# What Lightning says about every Trainer, of which a chain makes many; none of it is news to the user.
_EXPECTED = (
    ".*isinstance.treespec, LeafSpec.*",
    ".*does not have many workers.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*`training_step` returned `None`.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*You defined a `validation_step` but have no `val_dataloader`.*",
    ".*`max_epochs` was not set.*",
    ".*Found .* module.* in eval mode at the start of training.*",
    ".*Skipping val loop.*",
    ".*Total length of .* across ranks is zero.*",
    ".*predict returned None.*",
    # The gradient of a 1x1 kernel in channels-last order has other strides for the same order of elements.
    ".*Grad strides do not match bucket view strides.*",
)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep Lightning's remarks about every new Trainer from the terminal.

    Yields:
        Nothing.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fit_quietly(
    model: LightningModule,
    data: UnlearningDataModule,
    view: View,
    max_epochs: int,
    arguments: TrainerArguments,
    callbacks: list[Callback] | None = None,
    seeds: Sequence[int] = (),
) -> None:
    """Fit a model on a view of the data without validation, files or progress bar.

    Args:
        model: The model.
        data: The data; its served view is put back afterwards.
        view: What is served.
        max_epochs: Epochs.
        arguments: Further arguments of the Trainer.
        callbacks: Callbacks of the fit.
        seeds: Seeds of the models that are trained at once; see `data.datamodule.Serving`.
    """
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
    }
    before = data.serve(view, seeds=seeds)
    try:
        with quiet():
            build: Callable[..., Trainer] = Trainer
            trainer = build(
                **{**arguments, **silent},
                max_epochs=max_epochs,
                callbacks=[SeedEachStep(), RankStatistics(), *(callbacks or [])],
                plugins=[AtomicCheckpointIO()],
            )
            trainer.fit(model, datamodule=data)
    finally:
        data.serving = before


def stable_repr(value: object) -> str:
    """`repr` without memory addresses, which differ between processes.

    Args:
        value: Anything.

    Returns:
        Its text; `<function default_optimizer>` for a function.
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def plain_attributes(of: object, skip: Collection[str] = ()) -> list[tuple[str, str]]:
    """The arguments that an object kept. Private attributes are left out: they may hold what a fit recorded.

    Args:
        of: A stage, a callback or a plugin.
        skip: Public attributes that are no arguments.

    Returns:
        Name and text of each plain value, sorted.
    """
    plain = (str, int, float, tuple, list, dict, type(None))
    given = {name: value for name, value in vars(of).items() if not name.startswith("_") and name not in skip}
    return sorted((name, stable_repr(value)) for name, value in given.items() if isinstance(value, plain))


def describe_batches(data: UnlearningDataModule) -> str:
    """What the batches of a chain depend on beside its stages and samples: results are kept under it.

    Args:
        data: The data.

    Returns:
        One line: sizes of batches, which count where a stage has none of its own, augmentation and seed.
    """
    return f"{data.serving.batch_size} {data.serving.forget_batch_size} {stable_repr(data.augmentation)} {data.seed}"


def describe(model: nn.Module) -> dict[str, object]:
    """What a model is, in plain values: its class, its hyper-parameters, its optimiser, the source of the user's own modules.

    Args:
        model: The model.

    Returns:
        JSON-able values.
    """
    kind = type(model)
    description: dict[str, object] = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(model, LightningModule):
        description["hyper_parameters"] = {key: stable_repr(value) for key, value in sorted(model.hparams.items())}
    code: set[Code] = {type(module) for module in model.modules()}
    optimizer = getattr(model, "optimizer", None)
    if callable(optimizer):
        description["optimizer"] = describe_optimizer(optimizer)
        code.add(optimizer_class(optimizer))
    # Only where there is a class of the user's, so that other models keep their names.
    if source := hash_of_sources(code):
        description["source"] = source
    return description


def describe_optimizer(factory: Callable[[list[nn.Parameter]], Optimizer]) -> str:
    """The class and the settings of the optimiser that a factory makes.

    Args:
        factory: Makes an optimiser from parameters.

    Returns:
        One line.
    """
    optimizer = _example_of(factory)
    return f"{type(optimizer).__name__} {sorted((k, _number(v)) for k, v in optimizer.defaults.items())}"


def optimizer_class(factory: Callable[[list[nn.Parameter]], Optimizer]) -> type[Optimizer]:
    """The class of the optimiser that a factory makes.

    Args:
        factory: Makes an optimiser from parameters.

    Returns:
        The class.
    """
    return type(_example_of(factory))


def _example_of(factory: Callable[[list[nn.Parameter]], Optimizer]) -> Optimizer:
    import torch

    return build_optimizer(factory, [nn.Parameter(torch.zeros(1))])


def _number(value: object) -> str:
    """0 and 0.0 are the same setting, whether it came from Python or from YAML."""
    return repr(float(value)) if isinstance(value, int) and not isinstance(value, bool) else stable_repr(value)
