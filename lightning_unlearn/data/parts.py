"""From a forget rule to the parts of a training set."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.saved_split import SavedSplit, names_class
from lightning_unlearn.data.split import ForgetSplit, positions
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import AlreadyForgottenError, DataError, NothingKnownError
from lightning_unlearn.words import plural, were

__all__ = ["Parts", "fresh_parts", "parts_of_saved"]


class Parts(NamedTuple):
    """Who is in which part of a training set.

    Attributes:
        forget: Sample indices, (F,), int64, sorted; empty without a rule.
        retain: Sample indices, (R,), int64, sorted.
        unseen: Indices of samples that the model never trained on, (U,), int64, sorted.
        removed: Indices of samples that earlier requests removed, (N,), int64, sorted.
        never_trained: Keys that the request names but the model never trained on.
        forgotten_before: Keys that the request names although an earlier one removed or withdrew them.
        withdrawn: Keys of samples that were unseen until this request listed them; they are in no part.
        caution: What must be said of what the rule chose; empty: nothing.
    """

    forget: Tensor
    retain: Tensor
    unseen: Tensor
    removed: Tensor
    never_trained: list[str]
    forgotten_before: list[str]
    withdrawn: list[str]
    caution: str = ""


def fresh_parts(
    samples: Samples,
    unseen: Tensor | None,
    rule: ForgetRule | None,
    seed: int,
    class_names: Sequence[str],
    may_be_empty: bool = False,
) -> Parts:
    """The parts of a training set that no checkpoint has split yet.

    Args:
        samples: The training set.
        unseen: Indices of the unseen part, (U,), int64, sorted; None: empty.
        rule: What to forget; None: nothing.
        seed: Seed of the rule's draw.
        class_names: Names of the classes, in the order of the labels.
        may_be_empty: Whether nothing is forgotten where the model knows none of what the rule names; else that is an error.

    Returns:
        The parts.
    """
    none = torch.empty(0, dtype=torch.int64)
    mask = torch.ones(len(samples), dtype=torch.bool)
    unseen = none if unseen is None else unseen
    mask[unseen] = False
    candidates = mask.nonzero().flatten()
    if rule is None:
        return Parts(none, candidates, unseen, none, [], [], [])
    chosen = _select(rule, samples, candidates, seed, class_names, may_be_empty)
    withdrawn = _listed(rule, chosen.never_trained, [samples.keys[i] for i in unseen.tolist()])
    left = unseen[~torch.isin(unseen, positions(withdrawn, samples))]
    return Parts(*_split(chosen, candidates, may_be_empty), left, none, chosen.never_trained, [], withdrawn, chosen.caution)


def parts_of_saved(
    samples: Samples,
    saved: SavedSplit,
    rule: ForgetRule | None,
    seed: int,
    class_names: Sequence[str],
    name: str,
    may_be_empty: bool = False,
    judged: bool = False,
) -> Parts:
    """The parts of a training set that was split before: of what the checkpoint was trained on, and nothing else.

    Args:
        samples: The training set as it is now; samples may have gone or come.
        saved: The split.
        rule: What to forget; None: what the split says is forgotten.
        seed: Seed of the rule's draw.
        class_names: Names of the classes, in the order of the labels.
        name: Name of the data set, for the message.
        may_be_empty: Whether nothing is forgotten where the model knows none of what the rule names; else that is an error.

        judged: Whether the rule is the request that led to the split, not one on top of it: what the split calls withdrawn
            may then be of this request.

    Returns:
        The parts. What the split calls forgotten or removed is in none but `forget` and `removed`.

    Raises:
        DataError: No sample is one that the checkpoint was trained on.
        AlreadyForgottenError: All that the rule names was removed by earlier requests, but for what was never trained on.
        NothingKnownError: All of it was never trained on.
    """
    forgotten, unseen, removed = (positions(keys, samples) for keys in (saved.forget, saved.unseen, saved.removed))
    candidates = positions([*saved.retain, *saved.forget], samples)
    if not len(candidates):
        raise DataError(
            f"No sample of {name} is one that the checkpoint was trained on, by the split.json beside it. Give the data that "
            "it was trained on, or restore its split.json."
        )
    if rule is None:
        return Parts(forgotten, candidates[~torch.isin(candidates, forgotten)], unseen, removed, [], [], [])
    try:
        known = samples.with_former(saved.former(samples.keys))
        chosen = _select(rule, known, candidates, seed, class_names, may_be_empty)
    except NothingKnownError as error:
        before = {*saved.removed, *saved.withdrawn} & set(error.keys)
        if not before:
            raise
        others = len(error.keys) - len(before)
        raise AlreadyForgottenError(
            f"Nothing is left to forget: earlier requests have removed the {_amount(before)} of this one"
            + (f", and {others} more {were(others)} never trained on." if others else ".")
            + f" {error.caution}".rstrip()
        ) from None
    # What is forgotten already and not asked for now is not retained for that.
    also = forgotten[~torch.isin(forgotten, chosen.indices)]
    forget, retain = _split(chosen, candidates[~torch.isin(candidates, also)], may_be_empty)
    # What `saved.forget` names is this request, not an earlier one, also where its files are gone by now.
    earlier = {*saved.removed} if judged else {*saved.removed, *saved.withdrawn}
    before_now = [key for key in chosen.never_trained if key in earlier]
    asked = earlier | {*saved.forget}
    never = [key for key in chosen.never_trained if key not in asked]
    withdrawn = _listed(rule, never, saved.unseen)
    unseen = unseen[~torch.isin(unseen, positions(withdrawn, samples))]
    return Parts(forget, retain, unseen, torch.cat([removed, also]).sort().values, never, before_now, withdrawn, chosen.caution)


def _amount(keys: Collection[str]) -> str:
    """How many samples, or classes where there are no data."""
    if not all(map(names_class, keys)):
        return plural(len(keys), "sample")
    return "class" if len(keys) == 1 else f"{len(keys)} classes"


def _select(
    rule: ForgetRule, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str], may_be_empty: bool
) -> Selection:
    try:
        return rule.select(samples, candidates, seed, class_names)
    except NothingKnownError as error:
        if not may_be_empty:
            raise
        return Selection(candidates[:0], error.keys, error.caution)


def _listed(rule: ForgetRule, never_trained: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """What a request takes out of the unseen part."""
    return sorted({*never_trained} & {*unseen}) if rule.withdraws else []


def _split(chosen: Selection, candidates: Tensor, may_be_empty: bool) -> tuple[Tensor, Tensor]:
    if may_be_empty and not len(chosen.indices):
        return chosen.indices, candidates
    split = ForgetSplit(chosen.indices, candidates[~torch.isin(candidates, chosen.indices)], candidates)
    return split.forget, split.retain
