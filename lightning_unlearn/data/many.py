"""The batches of many models at once: for each model those that it would get alone."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.loaders import BatchMaker, ViewLoader
from lightning_unlearn.data.views import TWO_PARTS, Piece

__all__ = ["ManyLoader"]


class ManyLoader:
    """Training batches of K models: a `Batch` (or a dict of them) whose tensors begin with the dimension of models.

    Model k gets the order and the augmentation of seed k, as if it were trained alone: input (K, B, C, H, W), target and
    index (K, B).

    Args:
        loader: The batches of one model.
        seeds: Seed of order and augmentation of each model; where they are all the same, batches are made once.
    """

    def __init__(self, loader: ViewLoader, seeds: Sequence[int]) -> None:
        self.loader = loader
        self.count = len(seeds)
        self.seeds = list(seeds) if len(set(seeds)) > 1 else list(seeds[:1])

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch | dict[str, Batch]]:
        plan, maker = self.loader.plan, self.loader.maker
        epoch, start = self.loader.position()
        orders = [replace(plan, seed=seed).steps(epoch, start) for seed in self.seeds]
        # Copies share the images: they differ in the seed of the augmentation.
        makers = [copy.copy(maker) for _ in self.seeds]
        for k, seed in enumerate(self.seeds):
            makers[k].seed = seed
        # Images that workers read are asked for together.
        listed = list(zip(*orders, strict=True))
        if self.loader.images():
            wanted = [[torch.cat([p[name].index for p in pieces]) for name in pieces[0]] for pieces in listed]
            raw: Iterator[Sequence[Tensor | None]] = iter(maker.read(wanted))
        else:
            raw = iter([[None] * len(pieces[0]) for pieces in listed])
        for pieces, images in zip(listed, raw, strict=True):
            batches = {
                name: self._batch(makers, image, [p[name] for p in pieces])
                for name, image in zip(pieces[0], images, strict=True)
            }
            if plan.view in TWO_PARTS:
                yield batches
            else:
                yield batches.popitem()[1]

    def _batch(self, makers: Sequence[BatchMaker], images: Tensor | None, pieces: Sequence[Piece]) -> Batch:
        """One batch of all models from the images of their pieces, one piece after another."""
        if makers[0].augmentation is None or images is None:
            whole = Piece(torch.cat([piece.index for piece in pieces]), pieces[0].epoch, pieces[0].total)
            batch = makers[0].make(images, whole, augment=False)
            parts = [value.view(len(pieces), len(value) // len(pieces), *value.shape[1:]) for value in batch[:3]]
        else:
            shares = images.tensor_split(len(pieces))
            single = [m.make(share, piece, augment=True) for m, share, piece in zip(makers, shares, pieces, strict=True)]
            parts = [torch.stack(values) for values in list(zip(*single, strict=True))[:3]]
        if len(pieces) < self.count:
            parts = [part.expand(self.count, *part.shape[1:]) for part in parts]
        return Batch(parts[0], parts[1], parts[2], pieces[0].total, pieces[0].epoch)

    def state_dict(self) -> dict[str, int]:
        """Nothing; see `ViewLoader.state_dict`."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore; see `ViewLoader.state_dict`."""
