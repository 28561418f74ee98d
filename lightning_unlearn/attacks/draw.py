"""Which samples an attack is trained on: a seeded, class-balanced draw, never the first rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.data.hashing import order
from lightning_unlearn.exceptions import DataError

__all__ = ["AttackSets", "attack_sets", "balanced_draw"]


@dataclass(frozen=True, eq=False)
class AttackSets:
    """What an attack is trained on; of equal size.

    Attributes:
        members: Positions in the retain set, (M,), int64, ascending.
        non_members: Positions in the test set, (M,), int64, ascending.
    """

    members: Tensor
    non_members: Tensor


def balanced_draw(targets: Tensor, count: int, *, seed: int, index: Tensor | None = None, name: str = "draw") -> Tensor:
    """A draw without replacement that takes as equally from all classes as these allow.

    A class smaller than its share is taken whole, and the others make up for it; shares differ by at most one
    sample otherwise. Samples are ranked by a hash of (seed, name, index), so that deleting one hardly moves
    the others.

    Args:
        targets: (N,), int64, >= 0.
        count: How many, 0 ... N.
        seed: Seed of the draw.
        index: Sample indices, (N,), int64; positions where left out.
        name: What the draw is for; other names give independent draws.

    Returns:
        Positions in `targets`, (count,), int64, ascending.

    Raises:
        DataError: `count` is not in 0 ... N.
    """
    n = len(targets)
    if not 0 <= count <= n:
        raise DataError(f"A draw of {count} from {n} samples; needed: 0 to {n}.")
    drawn = order(torch.arange(n) if index is None else index, seed, name)
    # The place of each sample within its class, in the drawn order: taking all places below some height is
    # balanced.
    by_class = drawn[targets[drawn].argsort(stable=True)]
    sizes = targets.bincount()
    starts = sizes.cumsum(0) - sizes
    place = torch.empty(n, dtype=torch.int64)
    place[by_class] = torch.arange(n) - starts[targets[by_class]]
    # Within a height, classes are taken in the drawn order, so that none is favoured.
    taken = drawn[place[drawn].argsort(stable=True)][:count]
    return taken.sort().values


def attack_sets(retain_targets: Tensor, n_non_members: int, *, seed: int = 0, retain_index: Tensor | None = None) -> AttackSets:
    """Members and non-members to train an attack on: min(n_r, n_test) of each.

    Args:
        retain_targets: Labels of D_r, (n_r,), int64; the members are drawn class-balanced from it.
        n_non_members: n_test, the number of samples that are known not to be members.
        seed: Seed of both draws.
        retain_index: Sample indices of D_r, (n_r,), int64; positions where left out.

    Returns:
        Positions in both sets; they depend on no model, so all models are attacked with the same samples.
    """
    size = min(len(retain_targets), n_non_members)
    one_class = torch.zeros(n_non_members, dtype=torch.int64)
    return AttackSets(
        balanced_draw(retain_targets, size, seed=seed, index=retain_index, name="attack members"),
        balanced_draw(one_class, size, seed=seed, name="attack non-members"),
    )
