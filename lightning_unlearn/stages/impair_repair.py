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
    steps_each_batch = True

    def __init__(
        self,
        share: float = 0.2,
        batch_size: int | None = 256,
        optimizer: OptimizerCallable = repair_optimizer,
        **kwargs: object,
    ) -> None:
        if kwargs.get("max_epochs", 1) != 1:
            raise ChainError(
                f"{type(self).__name__}: max_epochs is {kwargs['max_epochs']}; needed: share, of one epoch, in its place."
            )
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
        noise_per_class: Images of noise of each class in a batch over all ranks, beside `batch_size` retained ones. The public
            code shuffles 60 images of each of two classes (of each of 20 copies of 256 as many as an image has channels)
            among 8,000 retained ones, in batches of 256: 2 of each class.
        batch_size: Retained samples of a batch over all ranks; 252 of 256 in the public code.
        optimizer: Makes the optimiser; Adam with 0.02 in the public code, a learning rate of 0.02 in the paper.
        **kwargs: See `UnlearningStage`.
    """

    requires = ("noise",)

    def __init__(
        self,
        share: float = 0.2,
        noise_per_class: int = 2,
        batch_size: int | None = 252,
        optimizer: OptimizerCallable = impair_optimizer,
        **kwargs: object,
    ) -> None:
        super().__init__(share, batch_size, optimizer, **kwargs)
        if noise_per_class < 1:
            raise ChainError(f"Impair: noise_per_class is {noise_per_class}; needed: at least 1.")
        self.noise_per_class = noise_per_class

    def on_fit_start(self) -> None:
        """Bring the noise to the device."""
        noise = self.artifacts["noise"]
        dtype = next(self.classifier.parameters()).dtype
        self._noise = {int(label): images.to(self.device, dtype) for label, images in noise.items()}

    def on_fit_end(self) -> None:
        """Let the noise go."""
        del self._noise

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """Mean cross-entropy over retained samples and noise together.

        Args:
            batch: Retained samples.

        Returns:
            A scalar.
        """
        assert isinstance(batch, Batch)
        # The same draw on every rank, each of which takes its part.
        source = generator(f"impair {self.global_step}")
        drawn = [
            images[torch.randint(len(images), (self.noise_per_class,), generator=source)] for images in self._noise.values()
        ]
        noise, of = torch.cat(drawn), torch.tensor([*self._noise]).repeat_interleave(self.noise_per_class)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        mine, labels = (torch.tensor_split(part, world)[rank].to(self.device) for part in (noise, of))
        logits = self.classifier(torch.cat([batch.input, mine.to(batch.input.dtype)]))
        labels = torch.cat([batch.target, labels])
        total = batch.count + len(noise)
        loss = F.cross_entropy(logits, labels, reduction="sum") * self.trainer.world_size / total
        # The step multiplies by the rank's weight in the retained samples alone.
        return loss / self.rank_weight(batch)
