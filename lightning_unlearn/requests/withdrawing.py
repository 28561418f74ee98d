"""A request that lists only samples that the model was never trained on: nothing is forgotten, and they are withdrawn."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from lightning_unlearn.chain.run import TrainerFactory, run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.evaluation.without_forgotten import accuracies
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.loading import save_unlearned
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.ranks import is_first, lock_on_first
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.requests.history import add_history
from lightning_unlearn.requests.ledger import UNLEARNED
from lightning_unlearn.requests.record import RequestRecord, settle
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["withdraw"]

# What the ledger calls the method.
NONE = "none: nothing to forget"


def withdraw(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    stages: Sequence[UnlearningStage],
    goal: Goal,
    checkpoint: str | None,
    output: str | None,
    configuration: str = "",
) -> Report:
    """Keep the weights as they are, in the folder of a run as after any request, with its split and its line in the ledger.

    Args:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`.
        model: Gives logits of images, with its weights.
        data: The data, split; nothing is forgotten.
        stages: Of the method, those that bring the model's own files along.
        goal: What unlearning is for.
        checkpoint: Where the weights came from.
        output: Folder of the result; None: nothing is written.
        configuration: The exact configuration, YAML, for the report.

    Returns:
        A report on the model, which is what it was.

    Raises:
        ConfigError: The folder holds a finished run.
    """
    folder = None if output is None else Path(output)
    report = new_report("unlearn", Panel(fresh, data, goal, request_of(data), relearn_epochs=0))
    report.config = configuration
    if folder is not None and (folder / UNLEARNED).exists():
        if is_first():
            settle(folder)
        raise ConfigError(f"{folder} holds a finished run, and nothing is written over. Choose another output folder.")
    metrics = accuracies(fresh, model, data)
    report.rows.append(Row("original", "original", report.requests[0].name, 0, metrics))
    if folder is None or not is_first():
        run_chain(fresh, model, data, stages, folder)
        return report
    with lock_on_first(folder, again=True):
        record = RequestRecord.begin(folder, data, checkpoint, NONE, stages)
        run_chain(fresh, model, data, stages, folder)
        add_history(report, checkpoint)
        record.finish(report, lambda path, request: save_unlearned(path, model, data, request))
        settle(folder)
    return report
