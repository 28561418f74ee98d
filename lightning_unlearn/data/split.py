"""The split of a training set, checked as indices; `saved_split` keeps it beside the checkpoint as keys."""

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

__all__ = ["ForgetSplit", "SavedSplit", "copies_among", "copies_left", "positions"]

# Images that are read one at a time are searched for copies up to this count: seconds, not minutes.
_READ_AT_MOST = 5000


@dataclass(frozen=True)
class ForgetSplit:
    """What is forgotten and what is retained: disjoint, never empty, together all candidates.

    Attributes:
        forget: Sample indices, (F,), int64.
        retain: Sample indices, (R,), int64.
        candidates: What both have to make up, (F + R,), int64; checked and not kept.

    Raises:
        DataError: The parts overlap, leave something out, reach outside, or one of them is empty.
    """

    forget: Tensor
    retain: Tensor
    candidates: InitVar[Tensor]

    def __post_init__(self, candidates: Tensor) -> None:
        for name, part in (("forget", self.forget), ("retain", self.retain)):
            if part.dtype != torch.int64 or part.dim() != 1:
                raise DataError(f"The {name} part is {part.dtype} of shape {tuple(part.shape)}; needed: int64 indices, (N,).")
        if len(self.forget) == 0:
            raise DataError("There is nothing to forget; needed: at least one sample.")
        if len(self.retain) == 0:
            raise DataError(
                f"All {len(self.forget)} samples are to be forgotten and none is retained; "
                "an untrained model is then the answer. Forget fewer."
            )
        together = torch.cat([self.forget, self.retain]).sort().values
        twice = together[1:][together[1:] == together[:-1]]
        if len(twice):
            raise DataError(f"{len(twice)} samples stand twice in the split, sample {int(twice[0])} among them.")
        if not torch.equal(together, candidates.sort().values):
            outside = together[~torch.isin(together, candidates)]
            missing = candidates[~torch.isin(candidates, together)]
            raise DataError(
                f"The split leaves {len(missing)} training samples out and holds {len(outside)} others; "
                "needed: each training sample in exactly one part."
            )


def positions(keys_wanted: Iterable[str], samples: Samples) -> Tensor:
    """Where samples lie now; those whose files are gone are left out.

    Args:
        keys_wanted: Keys.
        samples: The set as it is now.

    Returns:
        Indices in `samples`, int64, sorted.
    """
    wanted = set(keys_wanted)
    return torch.tensor([i for i, key in enumerate(samples.keys) if key in wanted], dtype=torch.int64)


def copies_left(samples: Samples, forget: Tensor, retain: Tensor, read: bool = False) -> list[tuple[str, str]] | None:
    """Retained samples with exactly the pixels of a forgotten one: what a deletion request overlooks.

    Args:
        samples: The training set.
        forget: Forgotten sample indices, (F,), int64.
        retain: Retained sample indices, (R,), int64.
        read: Search also a set of more than 5,000 samples whose images have to be read one at a time.

    Returns:
        Pairs of keys, a forgotten and a retained sample, in the order of the retained ones, each of which stands once; None
        where they were not searched for.
    """
    if not isinstance(samples.images, Tensor) and not read and len(forget) + len(retain) > _READ_AT_MOST:
        return None
    forgotten: dict[bytes, int] = {}
    for i in forget.tolist():
        forgotten.setdefault(samples.content(i), i)
    contents = ((j, samples.content(j)) for j in retain.tolist())
    return [(samples.keys[forgotten[content]], samples.keys[j]) for j, content in contents if content in forgotten]


def copies_among(trained: tuple[Samples, Tensor], others: Sequence[tuple[Samples, Tensor]]) -> list[int] | None:
    """How many samples of other parts have exactly the pixels of one that was trained on.

    Args:
        trained: The set and the indices of what was trained on.
        others: Those of other parts.

    Returns:
        A number for each; None where more than 5,000 images would have to be read one at a time, and nothing was searched.
    """
    parts = [trained, *others]
    if sum(len(index) for samples, index in parts if not isinstance(samples.images, Tensor)) > _READ_AT_MOST:
        return None
    known = {trained[0].content(i) for i in trained[1].tolist()}
    return [sum(samples.content(i) in known for i in index.tolist()) for samples, index in others]
