"""Judge what is left to judge by once the files of all forgotten samples are deleted, or where samples only were withdrawn."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.saved_split import SavedSplit, names_class
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.loading import load_copy, load_references
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.report.schema import Report, Role, Row
from lightning_unlearn.requests.history import made_by
from lightning_unlearn.words import plural, were

__all__ = ["accuracies", "judge_the_rest", "none_is_there"]


def none_is_there(data: UnlearningDataModule) -> bool:
    """Whether the split names forgotten samples of which none is in the data any more, or only withdrawn ones.

    Args:
        data: The data, after the checkpoint's split was looked for.

    Returns:
        True where they are gone, or nothing was forgotten.
    """
    saved = data.saved
    return saved is not None and bool(saved.forget or saved.withdrawn) and not len(data.part("forget")[1])


def judge_the_rest(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    goal: Goal,
    checkpoint: str | None,
    original: str | None,
    references: Sequence[str],
) -> Report:
    """Accuracy of a model, and of what it can be compared with, on retained, unseen and test samples.

    Args:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`.
        model: Gives logits of images, with its weights.
        data: The data, split as saved beside the checkpoint.
        goal: What unlearning was for.
        checkpoint: Where the weights came from.
        original: Checkpoint of the model before unlearning.
        references: Checkpoints of models retrained without the forgotten samples.

    Returns:
        A report that says nothing of the forgotten samples but that they are gone, or that there are none.
    """
    assert data.saved is not None  # the caller has looked
    gone = sorted(key for key in data.saved.forget if not names_class(key))
    digest = hashlib.sha256("\n".join(gone).encode()).hexdigest()
    retained = len(data.part("retain")[1])
    request = replace(request_of(data), count=len(gone), of=len(gone) + retained, digest=digest, gone=len(gone))
    models: list[tuple[str, Role, nn.Module]] = []
    before = None if original is None else load_copy(model, original, data)
    others, cautions = load_references(model, references, data, before)
    models += [("reference", "reference", other) for other in others]
    models += [] if before is None else [("original", "original", before)]
    made = made_by(checkpoint)
    models.append((made.method, "method", model))
    report = new_report("evaluate", Panel(fresh, data, goal, request, relearn_epochs=0, cautions=cautions))
    report.warnings.insert(0, _what_is_gone(data.saved, len(gone)))
    for name, role, judged in models:
        report.rows.append(Row(name, role, request.name, 0, accuracies(fresh, judged, data)))
    last = report.rows[-1]
    last.seed, last.exact, last.cautions = made.seed, made.exact, list(made.cautions)
    last.notes += made.cautions
    return report


def accuracies(fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule) -> dict[str, float]:
    """Accuracy of a model on all but forgotten samples.

    Args:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`.
        model: Gives logits of images.
        data: The data, split.

    Returns:
        Percent, by metric: `retain/acc`, and `unseen/acc` and `test/acc` (of classes that remain) where there are such samples.
    """
    parts: list[Part] = [part for part in data.present if part != "forget"]
    found = collect_outputs(fresh, model, data, parts)
    if "test" in found:
        remaining = ~torch.isin(found["test"].targets, data.gone_classes)
        if bool(remaining.any()):
            found["test"] = found["test"].select(remaining)
    return {f"{part}/acc": 100 * outputs.accuracy for part, outputs in found.items()}


def _what_is_gone(saved: SavedSplit, gone: int) -> str:
    if not saved.forget:
        withdrawn = len(saved.withdrawn)
        return (
            f"Nothing was forgotten; {plural(withdrawn, 'sample')} {were(withdrawn)} withdrawn, never trained on. Retained, "
            "unseen and test samples were looked at."
        )
    number = f"{gone} " if gone else ""
    return (
        f"None of the {number}forgotten samples that split.json names is in the data any more (deleted files?), so nothing can "
        "be said of how well they were forgotten. Retained, unseen and test samples were looked at; for the rest, restore the "
        "files, or see the report of the run that forgot them."
    )
