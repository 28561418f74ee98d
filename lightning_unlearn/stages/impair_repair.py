"""Impair the network with noise that is labelled as the forgotten classes, then repair it on retained samples."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Impair", "Repair", "impair_optimizer", "repair_optimizer"]


def impair_optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    """Adam with learning rate 0.02, as published."""
    return Adam(params, lr=0.02)


def repair_optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    """Adam with learning rate 0.01, as published."""
    return Adam(params, lr=0.01)


class Repair(UnlearningStage):
    """The last step of UNSIR (Tarun et al. 2021): one pass over a part of the retained samples, in train mode as published.

    Args:
        share: Share of the retained samples, random ones; 0.2 in the public code for CIFAR-10 (1,000 of 5,000 a class).
        batch_size: Retained samples of a batch over all ranks; 256 in the public code.
        optimizer: Makes the optimiser; Adam with 0.01 in the public code, a learning rate of 0.01 in the paper.
        **kwargs: See `UnlearningStage`.
    """

    view = "retain"

    def __init__(
        self,
        share: float = 0.2,
        batch_size: int | None = 256,
        optimizer: OptimizerCallable = repair_optimizer,
        **kwargs: object,
    ) -> None:
        super().__init__(batch_size=batch_size, optimizer=optimizer, **kwargs)  # type: ignore[arg-type]  # typed in the base class
        if not 0 < share <= 1:
            raise ChainError(f"{type(self).__name__}: share is {share}; needed: above 0, at most 1.")
        self.share = share

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.length`: the first batches of an epoch, whose order is random."""
        steps = math.ceil(self.share * len(data.plan))
        return 1, min(steps, self.max_steps or steps)

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """See `UnlearningStage.loss_of`: mean cross-entropy."""
        assert isinstance(batch, Batch)
        return F.cross_entropy(logits, batch.target)


class Impair(Repair):
    """The second step of UNSIR (Tarun et al. 2021): one pass over retained samples together with the noise.

    The noise counts as samples of the forgotten classes. One forward pass over both, in train mode as published.

    Args:
        share: See `Repair`.
        noise_batch: Images of noise in a batch over all ranks, beside `batch_size` retained ones. The public code shuffles 20
            copies of 256 images among 9,000 retained ones, in batches of 256: 93 and 163.
        batch_size: Retained samples of a batch over all ranks.
        optimizer: Makes the optimiser; Adam with 0.02 in the public code, a learning rate of 0.02 in the paper.
        **kwargs: See `UnlearningStage`.
    """

    requires = ("noise",)

    def __init__(
        self,
        share: float = 0.2,
        noise_batch: int = 93,
        batch_size: int | None = 163,
        optimizer: OptimizerCallable = impair_optimizer,
        **kwargs: object,
    ) -> None:
        super().__init__(share, batch_size, optimizer, **kwargs)
        if noise_batch < 1:
            raise ChainError(f"Impair: noise_batch is {noise_batch}; needed: at least 1.")
        self.noise_batch = noise_batch

    def on_fit_start(self) -> None:
        """Bring the noise to the device."""
        noise = self.artifacts["noise"]
        dtype = next(self.classifier.parameters()).dtype
        self._images = torch.cat([images.to(self.device, dtype) for images in noise.values()])
        labels = [torch.full((len(images),), int(label)) for label, images in noise.items()]
        self._labels = torch.cat(labels).to(self.device)

    def on_fit_end(self) -> None:
        """Let the noise go."""
        del self._images, self._labels

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy over retained samples and noise together.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        # The same draw on every rank, each of which takes its part.
        draw = torch.randint(len(self._images), (self.noise_batch,), generator=generator(f"impair {self.global_step}"))
        mine = torch.tensor_split(draw, self.trainer.world_size)[self.trainer.global_rank].to(self.device)
        logits = self.classifier(torch.cat([batch.input, self._images[mine].to(batch.input.dtype)]))
        labels = torch.cat([batch.target, self._labels[mine]])
        total = batch.count + self.noise_batch
        loss = F.cross_entropy(logits, labels, reduction="sum") * self.trainer.world_size / total
        # The step multiplies by the rank's weight in the retained samples alone.
        return loss / self.rank_weight(batch)
