"""What unlearning many models will take, before it begins."""

import time
from collections.abc import Callable, Sequence

import torch.nn.functional as F

from lightning_unlearn.bank.bank import Recipe
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import TWO_PARTS
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["expected_seconds", "seconds_per_pass"]

# What a Trainer takes to begin and to end a fit, however short it is.
SECONDS_PER_FIT = 0.1


def seconds_per_pass(recipe: Recipe, data: UnlearningDataModule) -> float:
    """A few training steps of one model, by the processor's clock: what they take on an idle machine.

    Args:
        recipe: How models are trained.
        data: The data.

    Returns:
        Seconds of forwarding one image; training on it takes three times as long.
    """
    batch = next(iter(data.evaluation_loader("retain", data.part("retain")[1][: data.batch_size])))
    model = recipe.build(0).to(batch.input.device)

    def step() -> None:
        F.cross_entropy(model(batch.input), batch.target).backward()  # type: ignore[no-untyped-call]  # torch's

    return min(_processor_seconds(step) for _ in range(6)) / (3 * len(batch.target))


def _processor_seconds(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def expected_seconds(stages: Sequence[UnlearningStage], data: UnlearningDataModule, per_pass: float) -> float:
    """About what a method takes for one model.

    Args:
        stages: The method.
        data: The data with its forget set.
        per_pass: Seconds of forwarding one image.

    Returns:
        Seconds of one core.
    """
    return sum(SECONDS_PER_FIT + per_pass * _passes(stage, data) for stage in stages)


def _passes(stage: UnlearningStage, data: UnlearningDataModule) -> float:
    forget, retain = (len(data.part(part)[1]) for part in ("forget", "retain"))
    try:
        epochs, steps = stage.length(data)
    except (AttributeError, KeyError):
        # Its length follows from what an earlier stage leaves.
        epochs, steps = 3, -1
    if steps > 0:
        sizes = stage.sizes(data)
        images = steps * (sum(sizes) if stage.view in TWO_PARTS else sizes[0])
    else:
        images = epochs * (forget if stage.view == "forget" else retain)
    return max(3.0 * images, retain)
