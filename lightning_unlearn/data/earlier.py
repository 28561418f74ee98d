"""What earlier requests mean for a training that goes on, and for judging what they left."""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch

from lightning_unlearn.data.saved_split import SavedSplit, label_named, names_class, saved_beside
from lightning_unlearn.data.split import positions
from lightning_unlearn.data.split_data import SplitData
from lightning_unlearn.exceptions import AlreadyForgottenError, DataError, NothingKnownError

__all__ = ["gone_of_request", "judge_as_saved", "keep_forgotten", "only_withdraws", "trained_on"]


log = logging.getLogger(__name__)


def keep_forgotten(data: SplitData, checkpoint: str | Path) -> None:
    """Keep out of a training what the checkpoint that it starts from was made to forget, and what was withdrawn.

    Without such samples, or on other data, nothing changes. Samples that came since are trained on; where there are none but
    forgotten ones, that is a `DataError`.

    Args:
        data: The data.
        checkpoint: Where the training starts.
    """
    saved = saved_beside(checkpoint)
    gone = [] if saved is None else [*saved.forget, *saved.removed, *saved.withdrawn]
    if saved is None or not gone:
        return
    by_class = any(map(names_class, gone)) and _same_classes(saved, data)
    same_place = bool(saved.place) and saved.place == data.dataset.place
    if not (by_class or same_place or len(positions(saved.retain, data.samples))):
        # Of other data keys may look alike, but for hashes of contents.
        if saved.by_content and data.samples.by_content:
            _leave_out(data, gone)
        return
    data.use_split_of(checkpoint, new_is_retained=True)
    try:
        data.part("retain")
    except (AlreadyForgottenError, NothingKnownError):
        # The rule asks for no more than what is removed anyway.
        data.draw_as_saved()


def _same_classes(saved: SavedSplit, data: SplitData) -> bool:
    """Whether classes that a split names by their labels are those of the data; where it has no names, the log says which."""
    if saved.classes:
        return saved.classes == data.dataset.classes
    keys = {key for part in (saved.forget, saved.retain, saved.removed) for key in part if names_class(key)}
    if len(keys) != data.num_classes:
        return False
    labels = sorted(label_named(key) for key in {*saved.forget, *saved.removed} if names_class(key))
    log.warning(
        "The checkpoint was made to forget the classes %s without data. They are left out here: %s. On data where labels mean "
        "other classes, give a copy of the checkpoint without the split.json beside it.",
        ", ".join(map(str, labels)), ", ".join(data.dataset.classes[label] for label in labels),
    )  # fmt: skip
    return True


def _leave_out(data: SplitData, keys: Collection[str]) -> None:
    """Keep samples out of every part of new data, as those that an earlier request removed."""
    out = {*keys} & {*data.samples.keys}
    if not out:
        return
    split = data.saved_split(everything_trained=True)
    retain, unseen = ([key for key in part if key not in out] for part in (split.retain, split.unseen))
    if not retain:
        raise DataError(
            f"All samples of {data.dataset.name} that would be trained on are ones that the checkpoint was made to forget. "
            "Give other data."
        )
    data.saved = replace(split, retain=retain, unseen=unseen, removed=sorted(out))
    data.draw()


def judge_as_saved(data: SplitData) -> None:
    """Judge a run by what its split calls forgotten, where its rule would choose otherwise by now.

    A random draw depends on which samples are there, and the list of a request may be gone. Where a request only withdrew,
    its list names nothing that is left to forget.

    Args:
        data: The data, after `use_split_of` without removing what is forgotten.
    """
    if data.saved is None or not (data.saved.forget or data.saved.withdrawn) or data.forget_rule is None:
        return
    forgotten = positions(data.saved.forget, data.samples)
    try:
        chosen = data.part("forget")[1]
        # Withdrawn samples stay in the split; what is trained on later has no request of its own to be judged by.
        same = torch.equal(chosen, forgotten) if data.saved.forget else len(chosen) > 0
    except DataError:
        same = False
    if not same:
        data.draw_as_saved()


def only_withdraws(data: SplitData) -> bool:
    """Whether a model knows none of the samples that its request lists, and some of them are to be withdrawn.

    Then the forgotten part is empty from here on, which is an error elsewhere.

    Args:
        data: The data, after `use_split_of`.

    Returns:
        False where there is something to forget.

    Raises:
        AlreadyForgottenError: Nothing is left to do: earlier requests have removed all of it.
        NothingKnownError: The model was never trained on any of it, and none of it is unseen.
    """
    try:
        return not len(data.part("forget")[1]) and bool(data.parts.withdrawn)
    except (AlreadyForgottenError, NothingKnownError):
        data.may_be_empty = True
        data.draw()
        if data.parts.withdrawn:
            return True
        data.may_be_empty = False
        data.draw()
        raise


def gone_of_request(data: SplitData) -> list[str]:
    """Forgotten samples of the request that is judged whose files are gone, which is what becomes of them.

    Args:
        data: The data, split.

    Returns:
        Their keys; none where something else is judged than what the saved split calls forgotten.
    """
    named = set() if data.saved is None else {key for key in data.saved.forget if not names_class(key)}
    samples, forget = data.part("forget")
    judged = {samples.keys[i] for i in forget.tolist()}
    return sorted(named - judged) if judged == named & set(samples.keys) else []


def trained_on(data: SplitData, checkpoint: str | Path) -> int:
    """How many of the forgotten samples a checkpoint was trained on, by the split saved beside it.

    Args:
        data: The data, split.
        checkpoint: A checkpoint file.

    Returns:
        Their number, those of earlier requests included; 0 where no split was saved, since nothing is known then.
    """
    saved = saved_beside(checkpoint)
    if saved is None:
        return 0
    samples, index = data.part("forget")
    earlier = [] if data.saved is None else data.saved.removed
    return len({*earlier, *(samples.keys[i] for i in index.tolist())} & set(saved.retain))
