"""Which samples a training step sees: the batches of a view, cut alike on every rank."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_unlearn.data.hashing import order
from lightning_unlearn.exceptions import DataError

__all__ = ["TWO_PARTS", "VIEWS", "Piece", "Plan", "View", "cut"]

View = Literal["train", "retain", "forget", "unseen", "both", "both_equal", "forget_then_retain", "pairs_then_retain", "none"]
VIEWS: tuple[View, ...] = get_args(View)
TWO_PARTS: tuple[View, ...] = ("both", "both_equal", "forget_then_retain", "pairs_then_retain")


class Piece(NamedTuple):
    """One rank's samples of one batch.

    Attributes:
        index: Sample indices, (b,), int64.
        epoch: The pass over the data that they belong to, which seeds their augmentation.
        total: Samples of the batch on all ranks.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a piece for
    epoch: int
    total: int


def cut(index: Tensor, batch_size: int, world: int) -> list[Tensor]:
    """Cut indices into batches whose sizes differ by at most one, none of them smaller than the number of ranks.

    A short last batch would spoil the statistics of BatchNorm.

    Args:
        index: (N,), int64.
        batch_size: Largest size of a batch, over all ranks.
        world: Number of ranks.

    Returns:
        ceil(N / batch_size) batches, or fewer where they would be smaller than `world`.

    Raises:
        DataError: There are fewer samples than ranks.
    """
    if len(index) < world:
        raise DataError(f"{len(index)} samples for {world} ranks; needed: at least one per rank. Use fewer devices.")
    batches = min(-(-len(index) // batch_size), len(index) // world)
    return list(torch.tensor_split(index, batches))


@dataclass(frozen=True)
class Plan:
    """The batches of every epoch of a view, as a function of the seed and the keys alone.

    Attributes:
        view: The part of the data that is served.
        forget: Forgotten sample indices, (F,), int64.
        retain: Retained sample indices, (R,), int64; in the view `unseen` the unseen ones.
        hashes: Key hashes of all samples of the set that indices speak of, (N,), int64.
        batch_size: Samples of a batch on all ranks; of the retained part in the views of two parts.
        forget_batch_size: The same for the forgotten part in these views.
        seed: Seed of the order.
        salt: What the order is for; stages of one chain differ here.
        rank: This rank.
        world: Number of ranks.
    """

    view: View
    forget: Tensor
    retain: Tensor
    hashes: Tensor
    batch_size: int
    forget_batch_size: int
    seed: int
    salt: str = ""
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Steps of an epoch."""
        match self.view:
            case "none":
                return 0
            case "train":
                return self._count(len(self.forget) + len(self.retain), self.batch_size)
            case "forget":
                return self._count(len(self.forget), self.batch_size)
            case "retain" | "unseen" | "both":
                return self._count(len(self.retain), self.batch_size)
            case "both_equal":
                return self._count(min(len(self.forget), len(self.retain)), self.forget_batch_size)
            case "forget_then_retain" | "pairs_then_retain":
                return self.forget_steps + self._count(len(self.retain), self.batch_size)

    @property
    def forget_steps(self) -> int:
        """Steps of an epoch before the retained part alone, in the views `forget_then_retain` and `pairs_then_retain`.

        A pass over pairs ends with the shorter of its two parts.
        """
        forget = self._count(len(self.forget), self.forget_batch_size)
        return forget if self.view == "forget_then_retain" else min(forget, self._count(len(self.retain), self.batch_size))

    def steps(self, epoch: int, start: int = 0) -> Iterator[dict[str, Piece]]:
        """This rank's part of each step of an epoch.

        Args:
            epoch: Number of the epoch.
            start: Steps to leave out at the beginning, for a run that is resumed inside an epoch.

        Yields:
            For every step the pieces by name: `forget`, `retain`, `unseen` or `train`; two in the view `both` and for pairs.
        """
        steps: list[dict[str, Tensor]]
        match self.view:
            case "none":
                return
            case "train" | "forget" | "retain" | "unseen":
                steps = [{self.view: b} for b in self._epoch(self.view, epoch, self.batch_size)]
            case "forget_then_retain" | "pairs_then_retain":
                steps = [{"forget": b} for b in self._epoch("forget", epoch, self.forget_batch_size)]
                if self.view == "pairs_then_retain":
                    # In another order than that of the pass over the retained part which follows.
                    beside = replace(self, salt=f"{self.salt}/pairs")._epoch("retain", epoch, self.batch_size)
                    steps = [{**step, "retain": b} for step, b in zip(steps, beside, strict=False)]
                steps += [{"retain": b} for b in self._epoch("retain", epoch, self.batch_size)]
            case "both_equal":
                # The same retained samples in every epoch, as many as there are forgotten ones.
                equal = replace(self, view="both", retain=self.equal_part(), batch_size=self.forget_batch_size)
                yield from equal.steps(epoch, start)
                return
            case "both":
                yield from self._both(epoch, start)
                return
        for step in steps[start:]:
            yield {name: self._piece(index, epoch) for name, index in step.items()}

    def equal_part(self) -> Tensor:
        """A random part of the retained samples, as large as the forgotten set.

        Returns:
            Sample indices, (min(F, R),), sorted, int64.
        """
        chosen = self.retain[order(self.hashes[self.retain], self.seed, "equal part")]
        return chosen[: len(self.forget)].sort().values

    def _count(self, n: int, batch_size: int) -> int:
        return len(cut(torch.arange(n), batch_size, self.world))

    def _epoch(self, part: str, epoch: int, batch_size: int) -> list[Tensor]:
        return cut(self._shuffled(part, epoch), batch_size, self.world)

    def _shuffled(self, part: str, epoch: int) -> Tensor:
        index = {"forget": self.forget, "retain": self.retain, "unseen": self.retain}.get(part)
        if index is None:
            index = torch.cat([self.forget, self.retain]).sort().values
        return index[order(self.hashes[index], self.seed, f"order/{self.salt}/{part}", epoch)]

    def _piece(self, index: Tensor, epoch: int) -> Piece:
        return Piece(torch.tensor_split(index, self.world)[self.rank], epoch, len(index))

    def _both(self, epoch: int, start: int) -> Iterator[dict[str, Piece]]:
        """An epoch over the retained samples; passes over the forgotten ones follow each other beside it without a break."""
        retain = self._epoch("retain", epoch, self.batch_size)
        n, size = len(self.forget), min(self.forget_batch_size, len(self.forget))
        if size < self.world:
            raise DataError(f"{size} forgotten samples a batch for {self.world} ranks; needed: one per rank.")
        first = epoch * len(retain) * size
        passes: dict[int, Tensor] = {}
        for step in range(start, len(retain)):
            begin = first + step * size
            wanted = range(begin // n, (begin + size - 1) // n + 1)
            passes = {k: passes[k] if k in passes else self._shuffled("forget", k) for k in wanted}
            stream = torch.cat([passes[k] for k in wanted])
            forget = stream[begin - wanted[0] * n :][:size]
            yield {
                # A batch may reach over the end of a pass; its samples then share the augmentation of the earlier one.
                "forget": self._piece(forget, wanted[0]),
                "retain": self._piece(retain[step], epoch),
            }
