"""BatchNorm on several ranks."""

from functools import cache

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["RankStatistics", "share_buffers"]


class RankStatistics(Callback):
    """Warns where BatchNorm takes its statistics from each rank's own samples, and leaves the same statistics on all ranks.

    DDP hands the first rank's buffers round before every forward pass, not after the last one: without this, ranks would
    end with different networks and fill their shares of the outputs from them.
    It warns once: a benchmark makes many fits. It acts after all other callbacks, which may put back what
    each rank kept.
    Runs on `setup`, `on_train_start`, `on_train_epoch_end` and `on_train_end`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the last place: Lightning has put the module's own callbacks behind those of the Trainer by now."""
        others = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]  # set by Lightning, not annotated
        # A new list: Lightning walks over the old one meanwhile, and would pass over the next callback.
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]  # likewise

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn."""
        if trainer.world_size > 1 and any(_has_own_statistics(module) for module in pl_module.modules()):
            _warn(trainer.strategy.root_device.type == "cpu")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give all ranks the first one's buffers: what is kept at the beginning of an epoch may come back."""
        share_buffers(pl_module, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same."""
        share_buffers(pl_module, trainer)


def share_buffers(network: nn.Module, trainer: Trainer) -> None:
    """Give all ranks the first one's buffers, in place.

    Args:
        network: On the device of its rank.
        trainer: Knows the ranks.
    """
    if trainer.world_size > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


@cache
def _warn(on_cpu: bool) -> None:
    where, remedy = (" on CPU ranks", "Use one device where it must not") if on_cpu else ("", "Set sync_batchnorm to true")
    rank_zero_warn(
        f"BatchNorm keeps per-rank statistics{where}: each rank normalises by its own part of the batch, so the result differs "
        f"a little from that of one process. {remedy}."
    )


def _has_own_statistics(module: nn.Module) -> bool:
    return module.training and isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
