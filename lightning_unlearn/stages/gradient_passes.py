"""Passes over a part of the data that stages share: its diagonal Fisher information, and its gradient."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.fisher import Kind, diagonal_fisher
from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.functional.residuals import label_residual
from lightning_unlearn.random import generator, run_seed
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["mean_fisher", "mean_gradient"]


def mean_fisher(
    stage: UnlearningStage,
    part: Part,
    samples: int | None = None,
    kind: Kind = "empirical",
    names: Sequence[str] | None = None,
    per_sample: bool = True,
    batch_size: int = 128,
) -> dict[str, Tensor]:
    """Diagonal Fisher information of a stage's network on a part of the data: the mean of squared gradients.

    To be called within the fit (`on_fit_start`). In eval mode, on un-augmented images, without autocast: float32 whatever
    the precision of the run, float64 for float64 networks.

    Args:
        stage: Its classifier, data and Trainer are used.
        part: `retain`, `forget`, `train` (both of them) or `unseen`.
        samples: How many are used, a random part; None: all.
        kind: `empirical` (gradient of the given label), `model_mc` (of a drawn label) or `model` (of all labels).
        names: Parameters; None: those that the stage selected.
        per_sample: Squares of per-sample gradients, the definition; else of the gradients of batch means, as much public code
            does: their size depends on `batch_size`, and on the number of ranks, each of which makes batches of its own.
        batch_size: Samples of a batch on one rank.

    Returns:
        By parameter name, of the parameter's shape, the same on every rank.
    """
    # The draw of labels differs between ranks, whose samples differ too.
    labels = generator(f"fisher labels {stage.trainer.global_rank}")
    batches = _batches(stage, part, samples, "fisher", batch_size)
    sums, count = diagonal_fisher(stage.classifier, batches, kind, names or stage.selected, per_sample, labels)
    total = _total(stage, count)
    return {name: sum_over_ranks(value, stage.trainer) / total for name, value in sums.items()}


def mean_gradient(
    stage: UnlearningStage,
    part: Part,
    samples: int | None = None,
    names: Sequence[str] | None = None,
    batch_size: int = 512,
) -> dict[str, Tensor]:
    """Gradient of the mean cross-entropy of a stage's network on a part of the data; see `mean_fisher`.

    Args:
        stage: Its classifier, data and Trainer are used.
        part: `retain`, `forget`, `train` (both of them) or `unseen`.
        samples: How many are used, a random part; None: all.
        names: Parameters; None: those that the stage selected.
        batch_size: Samples of a batch on one rank; the result does not depend on it.

    Returns:
        By parameter name, of the parameter's shape, the same on every rank.
    """
    names = names or stage.selected
    parameters = dict(stage.classifier.named_parameters())
    chosen = [parameters[name] for name in names]
    sums = [torch.zeros_like(parameter) for parameter in chosen]
    count = 0
    with differentiable_in(stage.classifier, names):
        for x, labels in _batches(stage, part, samples, "gradient", batch_size):
            logits = stage.classifier(x)
            grads = torch.autograd.grad(logits, chosen, label_residual(logits, labels), materialize_grads=True)
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)]
            count += len(x)
    total = _total(stage, count)
    return {name: sum_over_ranks(value, stage.trainer) / total for name, value in zip(names, sums, strict=True)}


def _batches(
    stage: UnlearningStage, part: Part, samples: int | None, purpose: str, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    chosen = stage.data.random_part(part, samples, purpose, run_seed())
    if len(chosen) == 0:
        raise DataError(f"{type(stage).__name__}: the part {part!r} holds no samples; needed: at least one.")
    for batch in stage.data.evaluation_loader(part, chosen, batch_size):
        batch = stage.trainer.precision_plugin.convert_input(batch)
        yield batch.input, batch.target


def _total(stage: UnlearningStage, count: int) -> Tensor:
    return sum_over_ranks(torch.tensor(float(count), device=stage.device), stage.trainer)
