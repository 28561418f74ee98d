"""Loaders that turn the pieces of a plan into batches on the device, from a resident tensor or through workers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.views import TWO_PARTS, Piece, Plan
from lightning_unlearn.data.vision import Samples

__all__ = ["BatchMaker", "EvaluationLoader", "ViewLoader"]


class _Reader(Dataset[list[Tensor]]):
    """Reads the images of a step in a worker: one list of stacked uint8 images per step, one entry per piece."""

    def __init__(self, samples: Samples, steps: Sequence[Sequence[Tensor]]) -> None:
        self.images, self.steps = samples.images, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[Tensor]:
        return [torch.stack([self.images[int(i)] for i in index]) for index in self.steps[step]]


@dataclass
class BatchMaker:
    """Makes normalised batches of one part of a data set, the same on the resident and on the worker path.

    Attributes:
        samples: The samples that indices speak of.
        mean: Per-channel mean in 0 ... 1.
        std: Per-channel standard deviation in 0 ... 1.
        augmentation: What is done to training images, or None.
        seed: Seed of the augmentation.
        device: Where batches are made.
        num_workers: Worker processes that read images which are not resident.
        resident: Whether all images are held on the device.
    """

    samples: Samples
    mean: Sequence[float]
    std: Sequence[float]
    augmentation: Augmentation | None
    seed: int
    device: torch.device
    num_workers: int = 0
    resident: bool = True

    def __post_init__(self) -> None:
        shape = (1, -1, 1, 1)
        self._mean = (torch.tensor(self.mean, dtype=torch.float32, device=self.device) * 255).view(shape)
        self._scale = (1 / (torch.tensor(self.std, dtype=torch.float32, device=self.device) * 255)).view(shape)
        self._resident: Tensor | None = None
        if self.resident:
            images = self.samples.images
            if not isinstance(images, Tensor):
                steps = [[index] for index in torch.split(torch.arange(len(self.samples)), 256)]
                images = torch.cat([part.cpu() for (part,) in self.read(steps)])
            self._resident = images.to(self.device)
        self._targets = self.samples.targets.to(self.device)
        self._hashes = self.samples.hashes.to(self.device)

    def read(self, steps: Sequence[Sequence[Tensor]]) -> Iterator[list[Tensor]]:
        """Raw images of steps, in order.

        Args:
            steps: For every step the indices of its pieces.

        Yields:
            One uint8 tensor (b, C, H, W) per piece.
        """
        if self._resident is not None:
            for step in steps:
                yield [self._resident[index.to(self.device)] for index in step]
            return
        reader = DataLoader(
            _Reader(self.samples, steps),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        for images in reader:
            yield [part.to(self.device, non_blocking=True) for part in images]

    def make(self, images: Tensor | None, piece: Piece, augment: bool) -> Batch:
        """Normalise, and augment where asked, the images of one piece.

        Args:
            images: (b, C, H, W), uint8, on the device; None for a batch without images.
            piece: Their indices.
            augment: Whether the augmentation applies.

        Returns:
            The batch on the device.
        """
        index = piece.index.to(self.device)
        if images is None:
            pixels = torch.empty(len(index), 0, device=self.device)
        else:
            if augment and self.augmentation is not None:
                images = self.augmentation(images, self._hashes[index], self.seed, piece.epoch)
            pixels = images.float().sub_(self._mean).mul_(self._scale)
        return Batch(pixels, self._targets[index], index, piece.total, piece.epoch)


class ViewLoader:
    """The training batches of a view: a `Batch`, or a dict of them for views of two parts.

    Args:
        plan: Which samples each step takes.
        maker: What makes batches of them.
        position: Gives the number of the epoch and of the first step in it when an epoch begins.
        images: Gives whether batches carry images; a stage on cached features needs indices only.
    """

    def __init__(
        self,
        plan: Plan,
        maker: BatchMaker,
        position: Callable[[], tuple[int, int]],
        images: Callable[[], bool] = lambda: True,
    ) -> None:
        self.plan, self.maker, self.position, self.images = plan, maker, position, images

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch | dict[str, Batch]]:
        epoch, start = self.position()
        steps = self.plan.steps(epoch, start)
        if not self.images():
            pairs: Iterable[tuple[dict[str, Piece], list[Tensor] | list[None]]] = (
                (pieces, [None] * len(pieces)) for pieces in steps
            )
        else:
            listed = list(steps)
            raw = self.maker.read([[piece.index for piece in pieces.values()] for pieces in listed])
            pairs = zip(listed, raw, strict=True)
        for pieces, images in pairs:
            batches = {
                name: self.maker.make(image, piece, augment=True)
                for (name, piece), image in zip(pieces.items(), images, strict=True)
            }
            if self.plan.view in TWO_PARTS:
                yield batches
            else:
                yield batches.popitem()[1]

    def state_dict(self) -> dict[str, int]:
        """Nothing: the position within an epoch is the loop's own, and everything else is a function of it."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore; see `state_dict`."""


class EvaluationLoader:
    """Every sample of a part exactly once over all ranks, in order of its index.

    Args:
        index: Sample indices of the part, (N,), int64.
        maker: What makes batches of them.
        batch_size: Samples of a batch on one rank.
        rank: This rank.
        world: Number of ranks.
        epoch: The pass over the data as in which images are augmented; None: they are not.
    """

    def __init__(
        self, index: Tensor, maker: BatchMaker, batch_size: int, rank: int = 0, world: int = 1, epoch: int | None = None
    ) -> None:
        self.index = index
        self.epoch = epoch
        mine = torch.tensor_split(index, world)[rank]
        self.batches = list(torch.split(mine, batch_size)) if len(mine) else []
        self.maker = maker

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        raw = self.maker.read([[index] for index in self.batches])
        for index, images in zip(self.batches, raw, strict=True):
            yield self.maker.make(images[0], Piece(index, self.epoch or 0, len(index)), augment=self.epoch is not None)

    def of_example(self) -> "EvaluationLoader":
        """The first sample of the part, for a rank that has none and needs to know what a model makes of one.

        Returns:
            A loader of one batch of one sample.
        """
        return EvaluationLoader(self.index[:1], self.maker, 1, epoch=self.epoch)
