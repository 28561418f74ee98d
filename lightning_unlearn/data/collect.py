"""One pass over samples, each seen once over all ranks."""

from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.loaders import EvaluationLoader

__all__ = ["collect", "gather_rows", "sum_over_ranks"]


def sum_over_ranks(value: Tensor, trainer: Trainer) -> Tensor:
    """The sum of a tensor over all ranks; the tensor itself where there is one.

    Args:
        value: Any tensor on the trainer's device.
        trainer: The trainer.

    Returns:
        The same shape.
    """
    return value if trainer.world_size == 1 else trainer.strategy.reduce(value, reduce_op="sum")


def gather_rows(rows: Tensor, total: int, trainer: Trainer) -> Tensor:
    """Rows of one batch from all ranks, in the order of the ranks: for losses that couple the samples of a batch.

    Args:
        rows: This rank's part of the batch, (b, ...), as `tensor_split` cut it.
        total: Samples of the batch on all ranks; 0 where this is the whole batch.
        trainer: Knows the ranks.

    Returns:
        (total, ...), detached, the same on every rank.
    """
    if trainer.world_size == 1:
        return rows.detach()
    share, more = divmod(total, trainer.world_size)
    begin = trainer.global_rank * share + min(trainer.global_rank, more)
    whole = rows.new_zeros((total, *rows.shape[1:]))
    whole[begin : begin + len(rows)] = rows.detach()
    return sum_over_ranks(whole, trainer)


def collect(forward: Callable[[Batch], Tensor], loader: EvaluationLoader, index: Tensor, trainer: Trainer) -> Tensor:
    """Rows of a function of samples, in the order of `index`, complete on every rank.

    Args:
        forward: Gives one row per sample of a batch, (B, ...).
        loader: This rank's share of the samples.
        index: Sample indices, (N,), sorted, int64.
        trainer: Knows the ranks, the device and the precision.

    Returns:
        (N, ...) on the trainer's device, detached.
    """
    device = trainer.strategy.root_device
    index = index.to(device)
    rows: Tensor | None = None
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        mine = len(loader) > 0
        # A rank that has no sample looks at one of another's, for the shape of what it adds zeros to.
        for batch in loader if mine else loader.of_example():
            values = forward(trainer.precision_plugin.convert_input(batch))
            if rows is None:
                # Ranks fill their own rows; zeros elsewhere make the sum over ranks the whole.
                rows = values.new_zeros((len(index), *values.shape[1:]))
            if mine:
                rows[torch.searchsorted(index, batch.index)] = values
    assert rows is not None
    return sum_over_ranks(rows, trainer)
