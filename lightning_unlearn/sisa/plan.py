"""Which samples each slice holds, which slices have to be trained, and what that costs."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.data.hashing import uniform
from lightning_unlearn.data.vision import Samples, stamp
from lightning_unlearn.report.labels import count
from lightning_unlearn.sisa.recipe import SliceRecipe

__all__ = ["Slice", "SlicePlan", "assign", "cut_slices", "expected_share"]

# Sizes of requests whose expected cost is shown.
_REQUESTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Slice:
    """The training of a shard that ends with one of its slices.

    Attributes:
        shard: Number of the shard, from 0.
        number: Number of the slice, from 0.
        index: Samples of this slice and those before it, (n,), sorted, int64.
        name: Of its checkpoint: two slices have the same one only where recipe and samples, and so the weights, are the same; a
            sample's content counts as far as `stamp` knows it.
    """

    shard: int
    number: int
    index: Tensor
    name: str


def assign(hashes: Tensor, recipe: SliceRecipe) -> tuple[Tensor, Tensor]:
    """Shard and slice of samples: functions of the key and the seed, so that a deletion moves no other sample.

    Args:
        hashes: Key hashes, (N,), int64.
        recipe: The recipe.

    Returns:
        Numbers of the shards and of the slices, each (N,), int64.
    """
    shard = (uniform(hashes, recipe.seed, "sisa/shard") * recipe.shards).long()
    return shard, (uniform(hashes, recipe.seed, "sisa/slice") * recipe.slices).long()


def cut_slices(recipe: SliceRecipe, samples: Samples, index: Tensor) -> list[list[Slice]]:
    """All slices of a training set.

    Args:
        recipe: The recipe.
        samples: The set that indices speak of.
        index: Samples to train on, (N,), sorted, int64.

    Returns:
        By shard, its slices in order.
    """
    shard_of, slice_of = assign(samples.hashes[index], recipe)
    beginning = json.dumps(recipe.plain(), sort_keys=True).encode()
    found = []
    for shard in range(recipe.shards):
        digest = hashlib.sha256(beginning + f"/{shard}".encode())
        slices = []
        for number in range(recipe.slices):
            own = index[(shard_of == shard) & (slice_of == number)]
            # In the order of the keys' hashes: positions change when rows are deleted.
            own = own[samples.hashes[own].argsort()]
            digest.update(f"/{number}/{len(own)}/".encode())
            digest.update(samples.hashes[own].numpy().tobytes() + samples.targets[own].numpy().tobytes())
            # A file may have been replaced under its name.
            digest.update(b"".join(stamp(samples.images, i) for i in own.tolist()))
            seen = index[(shard_of == shard) & (slice_of <= number)]
            slices.append(Slice(shard, number, seen, f"shard-{shard}-slice-{number}-{digest.hexdigest()[:16]}"))
        found.append(slices)
    return found


@dataclass(frozen=True)
class SlicePlan:
    """What has to be trained.

    Attributes:
        slices: By shard, all its slices in order.
        missing: Those that are to be trained.
        epochs: Epochs of each slice's training.
    """

    slices: Sequence[Sequence[Slice]]
    missing: Sequence[Slice]
    epochs: int

    @property
    def images(self) -> int:
        """Images that are passed forward and backward."""
        return self.epochs * sum(len(slice.index) for slice in self.missing)

    @property
    def share(self) -> float:
        """The work as a share of training all shards, 0 ... 1."""
        whole = self.epochs * sum(len(slice.index) for shard in self.slices for slice in shard)
        return self.images / whole if whole else 0.0

    def text(self) -> str:
        """The plan in one sentence, with its cost.

        Returns:
            Text for the terminal and the report.
        """
        if not self.missing:
            return "SISA plan: every slice has its checkpoint, and nothing is trained."
        first: dict[int, Slice] = {}
        for slice in self.missing:
            first.setdefault(slice.shard, slice)
        parts = [
            f"shard {shard} from slice {slice.number + 1} of {len(self.slices[shard])}, "
            f"{count(len(self.slices[shard][-1].index))} samples"
            for shard, slice in first.items()
        ]
        listed = "; ".join(parts[:8]) + (f"; {len(parts) - 8} more shards" if len(parts) > 8 else "")
        return (
            f"SISA plan: {len(first)} of {len(self.slices)} shards are trained ({listed}): {count(3 * self.images)} image "
            f"passes, {100 * self.share:.1f} % of training all shards."
        )

    def expected_shares(self) -> dict[str, float]:
        """What requests of random samples would cost, by their size: the expected share of training all shards."""
        seen = [len(slice.index) for shard in self.slices for slice in shard]
        whole = sum(len(shard[-1].index) for shard in self.slices)
        return {str(size): expected_share(seen, whole, size) for size in _REQUESTS if size < whole}


def expected_share(seen: Sequence[int], whole: int, size: int) -> float:
    """Expected work of a batched request of random samples, as a share of training all shards.

    A slice's training is repeated unless it saw none of the request, which has the hypergeometric probability
    C(N - n, k) / C(N, k); its work is proportional to the n samples that it sees.

    Args:
        seen: Samples that each slice's training sees, n, of all shards.
        whole: Samples of all shards, N.
        size: Samples of the request, k, at most N.

    Returns:
        0 ... 1.
    """

    def log_choose(n: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(size + 1) - math.lgamma(n - size + 1)

    spared = [math.exp(log_choose(whole - n) - log_choose(whole)) if whole - n >= size else 0.0 for n in seen]
    work = torch.tensor(seen, dtype=torch.float64)
    return float((work * (1 - torch.tensor(spared, dtype=torch.float64))).sum() / work.sum())
