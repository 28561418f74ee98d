"""Unlearning where no data can be read: from a checkpoint and the names of classes alone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch import nn

from lightning_unlearn.chain.run import StageResult, TrainerFactory, run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forgotten_classes import split_without_data
from lightning_unlearn.data.saved_split import SPLIT
from lightning_unlearn.evaluation.new_report import cautions_of, machine, record_of
from lightning_unlearn.exceptions import ChainError, ConfigError
from lightning_unlearn.loading import save_unlearned
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.random import run_seed
from lightning_unlearn.ranks import is_first, lock_on_first
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.requests.ledger import UNLEARNED
from lightning_unlearn.requests.record import RequestRecord, settle
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["unlearn_without_data"]

_UNMEASURED = (
    "No data were read, so nothing was measured on samples: not what is forgotten, nor what was lost. Where data are, say "
    "evaluate --checkpoint with this model and its --original, and --data.forget WholeClasses with the same classes."
)


def unlearn_without_data(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    stages: Sequence[UnlearningStage],
    goal: Goal,
    checkpoint: str | None,
    output: str | None,
    name: str | None,
    configuration: str = "",
) -> Report:
    """Make a model forget without reading a sample, save the result and say what was done.

    Args:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`.
        model: Gives logits of images, with its weights; is changed in place.
        data: Holds no images: a `NoData` with its forget rule.
        stages: The method.
        goal: What unlearning is for.
        checkpoint: Where the weights came from.
        output: Folder of the result; None: nothing is written.
        name: Name of the method in the report; None: the names of its stages.
        configuration: The exact configuration, YAML, for the report.

    Returns:
        A report without measurements.

    Raises:
        ChainError: A stage trains on data.
        ConfigError: The folder holds a finished run.
    """
    for i, stage in enumerate(stages):
        if stage.view != "none":
            raise ChainError(
                f"stages[{i}] ({type(stage).__name__}) trains on samples (view {stage.view!r}), and NoData has none. Needed: a "
                "method that works from the checkpoint alone, such as -c method/mnemonic, or the data."
            )
    assert data.forget_rule is not None  # the caller has looked
    named = name or " + ".join(type(stage).__name__ for stage in stages)
    folder = None if output is None else Path(output)
    if folder is not None and (folder / UNLEARNED).exists():
        if is_first():
            settle(folder)
        raise ConfigError(f"{folder} holds a finished run, and nothing is written over. Choose another output folder.")
    if folder is None or not is_first():
        return _report(named, data, goal, configuration, run_chain(fresh, model, data, stages, folder))
    with lock_on_first(folder, again=True):
        # First: a stage that reads samples after all ends here, and nothing is left behind.
        report = _report(named, data, goal, configuration, run_chain(fresh, model, data, stages, folder))
        record = RequestRecord.begin(folder, data, checkpoint, named, stages)
        split_without_data(checkpoint, data.saved_split()).save(folder / SPLIT)
        record.finish(report, lambda path, request: save_unlearned(path, model, data, request))
        settle(folder)
    return report


def _report(name: str, data: UnlearningDataModule, goal: Goal, configuration: str, results: Sequence[StageResult]) -> Report:
    assert data.forget_rule is not None
    request = data.forget_rule.describe()
    row = Row(name, "method", request, run_seed(), {"time/unlearn_s": sum(result.seconds for result in results)})
    row.stages = [record_of(result) for result in results]
    row.notes = [result.note for result in results if result.note]
    row.exact, row.cautions = results[-1].exact, cautions_of(results)
    return Report(
        "unlearn",
        f"without data: {request}",
        datetime.now(UTC).isoformat(timespec="seconds"),
        goal,
        "screen",
        rows=[row],
        config=configuration,
        versions={package: version(package) for package in ("torch", "lightning", "torchmetrics")},
        machine=machine(),
        warnings=[_UNMEASURED, *(result.warning for result in results if result.warning)],
    )
