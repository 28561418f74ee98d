"""A report before its rows: what is forgotten, on which machine, and what must be warned of."""

import hashlib
import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

import torch

from lightning_unlearn.cautions import of_copies, of_request, of_split
from lightning_unlearn.chain.run import StageResult
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.earlier import gone_of_request
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.report.schema import Kind, Report, Request, StageRecord

__all__ = ["cautions_of", "machine", "new_report", "record_of", "request_of"]


class Judging(Protocol):
    """What a report must know of the panel that models are judged by; see `Panel`."""

    data: UnlearningDataModule
    goal: Goal
    request: Request
    cautions: list[str]


def record_of(result: StageResult, share: float = math.nan) -> StageRecord:
    """What one stage took and found, as a report holds it.

    Args:
        result: What the chain gave.
        share: Its work as a share of retraining's; NaN: not known.

    Returns:
        The record; the course of a mask over the steps is left out.
    """
    found = {name: dict(group) for name, group in result.summary.items() if group and name != "mask_course"}
    mask_on, requests = found.pop("mask_on", {}), found.pop("requests", {})
    return StageRecord(result.name, result.seconds, result.work, share, mask_on, requests, found)


def cautions_of(results: Sequence[StageResult]) -> list[str]:
    """What a method says against its own figures, for whoever judges its model again.

    Args:
        results: What the chain gave.

    Returns:
        Warnings and notes of its stages.
    """
    return [text for result in results for text in (result.warning, result.note) if text]


def request_of(data: UnlearningDataModule, name: str | None = None) -> Request:
    """What is forgotten, in the words of a report: no key of a sample.

    Args:
        data: The data, with a forget rule.
        name: Its name; None: the rule's description.

    Returns:
        The request.
    """
    samples, forget = data.part("forget")
    copies = data.copies
    gone = gone_of_request(data)
    keys = sorted([*(samples.keys[i] for i in forget.tolist()), *gone])
    rule = "as saved beside the checkpoint" if data.forget_rule is None else data.forget_rule.describe()
    return Request(
        name=name or rule,
        rule=rule,
        count=len(keys),
        of=len(keys) + len(data.part("retain")[1]),
        digest=hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        copies_left=None if copies is None else len(copies),
        never_trained=len(data.parts.never_trained),
        gone=len(gone),
    )


def new_report(kind: Kind, panel: Judging, title: str | None = None) -> Report:
    """A report without rows.

    Args:
        kind: The command that makes it.
        panel: What models are judged by.
        title: Shown on top; None: made from the request.

    Returns:
        The report.
    """
    data = panel.data
    warnings = [*panel.cautions, *of_split(data), *of_copies(data)]
    if data.unseen == "half_of_test":
        noisy = "" if data.label_noise is None else " Its labels are right and those of training are not: comparisons see that."
        warnings.append(f"Half of the test set stands for unseen samples; test figures are those of the other half.{noisy}")
    elif data.halves_the_test_set:
        why = (
            "Nothing is known about which samples the checkpoint never saw"
            if data.saw_everything
            else "No sample is left that the checkpoint never saw"
        )
        warnings.append(
            f"{why}: the test set was cut into two disjoint halves, "
            "one of which stands for unseen samples; test figures are those of the other half."
        )
    gone, there = panel.request.gone, panel.request.judged
    if gone and there:
        warnings.append(
            f"{gone} of the {gone + there} forgotten samples are no longer in the data (deleted files?): figures of "
            f"forgotten samples are those of the other {there}."
        )
    warnings += of_request(data)
    if panel.request.copies_left:
        copies = "1 exact copy" if panel.request.copies_left == 1 else f"{panel.request.copies_left} exact copies"
        warnings.append(
            f"{copies} of forgotten samples {'stays' if panel.request.copies_left == 1 else 'stay'} among the retained ones; "
            "what is learnt from them is not forgotten."
        )
    return Report(
        kind,
        title or f"{data.dataset.name}: {panel.request.name}",
        datetime.now(UTC).isoformat(timespec="seconds"),
        panel.goal,
        "screen",
        requests=[panel.request],
        versions={name: version(name) for name in ("torch", "lightning", "torchmetrics")},
        machine=machine(),
        warnings=warnings,
    )


def machine() -> str:
    """The machine in words.

    Returns:
        Accelerator or processor, and the number of threads.
    """
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
