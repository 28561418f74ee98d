"""Who is forgotten, retained, unseen, or only tested on."""

from collections.abc import Collection
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_unlearn.data.as_trained import normalised_as
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.forgotten_classes import (
    classes_alone,
    classes_without,
    knows_classes_alone,
    resolve_classes,
    with_new,
    with_unseen,
)
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.parts import Parts, fresh_parts, parts_of_saved
from lightning_unlearn.data.saved_split import SavedSplit, saved_beside
from lightning_unlearn.data.split import copies_left, positions
from lightning_unlearn.data.trigger import Trigger
from lightning_unlearn.data.unseen import Unseen, carved, check_unseen, halves, remedy
from lightning_unlearn.data.views import View
from lightning_unlearn.data.vision import Samples, VisionData, fingerprint_of
from lightning_unlearn.exceptions import DataError

__all__ = ["PARTS", "Part", "SplitData"]

Part = Literal["retain", "forget", "train", "unseen", "test", "triggered"]
# Those that share no sample; `train` is retain and forget together, `triggered` test samples with a backdoor's patch.
PARTS: tuple[Part, ...] = ("retain", "forget", "unseen", "test")


class SplitData(LightningDataModule):
    """The split of a training set by a forget rule, with the unseen part carved out before; see `UnlearningDataModule`.

    Args:
        dataset: The data set.
        forget: Which samples to forget.
        unseen: Samples that the original never trains on.
        label_noise: Wrong labels to add to the training set.
        split_seed: Seed of the unseen part.
        forget_seed: Seed of the forget rule's draw.
        trigger: A backdoor to plant in the training set.
    """

    def __init__(
        self,
        dataset: VisionData,
        forget: ForgetRule | None = None,
        unseen: Unseen = None,
        label_noise: LabelNoise | None = None,
        split_seed: int = 0,
        forget_seed: int = 0,
        trigger: Trigger | None = None,
    ) -> None:
        super().__init__()
        check_unseen(unseen, dataset)
        self.dataset = dataset
        self.trigger = trigger
        self.set_noise(label_noise)
        self.forget_rule = forget
        self.unseen = unseen
        self.split_seed = split_seed
        self.forget_seed = forget_seed
        self.saved: SavedSplit | None = None
        self._judged = False
        # Then nothing is carved out.
        self.saw_everything = not dataset.has_images or unseen == "half_of_test"
        # Whether a count or share was carved out although the checkpoint came without the split that it was trained with.
        self.unseen_taken_on_trust = False
        # Whether all samples count as trained because the split beside the checkpoint names classes alone.
        self.taken_to_know_all = False
        # Whether it is no error that the model knows none of what is to be forgotten; see `only_withdraws`.
        self.may_be_empty = False

    def set_noise(self, label_noise: LabelNoise | None, known: Collection[str] = ()) -> None:
        """Make the training samples anew: those of the data set with label noise, and then with the trigger.

        Args:
            label_noise: Wrong labels to add; None: none.
            known: See `LabelNoise.apply`.
        """
        self.label_noise = label_noise
        self._noise_known = known
        # What the trigger leaves clean; the unseen part is taken from it.
        self.untriggered = self.dataset.train
        if label_noise is not None:
            self.untriggered = label_noise.apply(self.dataset.train, self.num_classes, known)
        self.samples = self.untriggered
        if self.trigger is not None:
            self.samples = self.trigger.apply(self.untriggered, self.num_classes)

    @property
    def altered(self) -> str:
        """What was done to labels and images on purpose, in words; empty where nothing was."""
        return " and ".join(repr(change) for change in (self.label_noise, self.trigger) if change is not None)

    # What other parts of a configuration are linked to.

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.dataset.num_classes

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return int(self.samples.images[0].shape[0])

    @property
    def image_size(self) -> int:
        """Height (and width) of the images."""
        return int(self.samples.images[0].shape[-1])

    @property
    def present(self) -> tuple[Part, ...]:
        """Names of the parts that hold samples."""
        return tuple(name for name in PARTS if len(self.part(name)[1]))

    # The split.

    def use_split_of(
        self, checkpoint: str | Path | None, forgotten_is_removed: bool = True, new_is_retained: bool = False
    ) -> None:
        """Take the unseen and the removed samples from the split that was saved beside a checkpoint.

        Where there is none and `unseen` was not given, the checkpoint is taken to have seen all training samples. Where there
        is one, samples that it does not name, and those that were forgotten earlier, are in no part and reach no loader.

        Args:
            checkpoint: A checkpoint file, or None for a model that was trained on this very object.
            forgotten_is_removed: Whether what the split says is forgotten belongs to an earlier request (for another one
                on top of it), or is what this object forgets (to evaluate it).
            new_is_retained: Whether samples that the split does not name are retained (to train on).
        """
        if self.may_be_empty:
            self.may_be_empty = False
            self._reset_split()
        if checkpoint is None:
            return
        self.saved = saved_beside(checkpoint)
        if not self.dataset.has_images:
            self.saved = None if self.saved is None else classes_alone(self.saved, self.dataset.classes)
            self._reset_split()
            return
        self._judged = not forgotten_is_removed
        self.dataset = normalised_as(self.dataset, self.saved)
        if self.label_noise is not None and (self.saved is not None or self._noise_known):
            self.set_noise(self.label_noise, () if self.saved is None else self.saved.named)
        # Without data nobody knew which samples an original had seen, unless its own split lay beside it.
        unknown = self.saved is None or knows_classes_alone(self.saved)
        share = isinstance(self.unseen, int | float) and self.unseen > 0
        if self.saved is not None:
            self.saved.check_classes(self.dataset.classes)
            self.saved = resolve_classes(self.saved, self.samples)
            if unknown and share:
                never = (self.samples.keys[i] for i in carved(self.unseen, self.samples, self.split_seed).tolist())
                self.saved = with_unseen(self.saved, never, judged=not forgotten_is_removed)
            self.saved = self.saved.for_another_request() if forgotten_is_removed else self.saved
            if new_is_retained:
                self.saved = with_new(self.saved, self.samples)
        # Also where the split was saved by a run on such a checkpoint.
        known = self.saved is not None and bool(self.saved.unseen)
        self.saw_everything = self.unseen == "half_of_test" or (self.unseen is None and not known)
        self.unseen_taken_on_trust = unknown and share
        self.taken_to_know_all = unknown and self.saved is not None and self.unseen in (None, "half_of_test")
        self._reset_split()

    def draw(self, forget_seed: int | None = None, forget: ForgetRule | None = None) -> None:
        """Draw another forget set: by another seed, another rule, or both. The unseen part stays.

        Args:
            forget_seed: Seed of the rule's draw.
            forget: The rule.
        """
        self.forget_seed = self.forget_seed if forget_seed is None else forget_seed
        self.forget_rule = self.forget_rule if forget is None else forget
        self._reset_split()

    def draw_as_saved(self) -> None:
        """Forget what the saved split calls forgotten, without a rule."""
        self.forget_rule = None
        self._reset_split()

    def _reset_split(self) -> None:
        for name in ("parts", "_test_halves", "gone_classes", "removed_classes"):
            self.__dict__.pop(name, None)

    @cached_property
    def parts(self) -> Parts:
        """Who is in which part of the training set, and what the request names besides."""
        if self.saved is not None:
            how = (self.dataset.classes, self.dataset.name, self.may_be_empty, self._judged)
            return parts_of_saved(self.samples, self.saved, self.forget_rule, self._forget_seed, *how)
        none = self.saw_everything or isinstance(self.unseen, VisionData)
        unseen = None if none else carved(self.unseen, self.samples, self.split_seed)
        rule = (self.forget_rule, self._forget_seed)
        return fresh_parts(self.samples, unseen, *rule, self.dataset.classes, self.may_be_empty)

    @property
    def _forget_seed(self) -> int:
        # The draw differs from that of the unseen part even where both seeds are 0: hashing keeps purposes apart.
        return self.split_seed * 1_000_003 + self.forget_seed

    @property
    def halves_the_test_set(self) -> bool:
        """Whether half of the test set stands for unseen samples: none are known, or a request withdrew the last ones."""
        return self.saw_everything or (self.unseen is None and self.saved is not None and not len(self.parts.unseen))

    @cached_property
    def _test_halves(self) -> tuple[Tensor, Tensor]:
        """Test samples that serve as unseen, and those that report. The first is empty where unseen samples are known."""
        return halves(self.dataset.test, self.split_seed if self.halves_the_test_set else None)

    def part(self, name: Part) -> tuple[Samples, Tensor]:
        """The samples of a part: the set they lie in, and their indices there.

        Args:
            name: `retain`, `forget`, `train` (both of them), `unseen`, `test`, or `triggered`: the test samples of classes
                other than the trigger's target, with its patch and their own labels.

        Returns:
            The set, and indices (N,), sorted, int64.

        Raises:
            DataError: The data have no trigger.
        """
        if name == "triggered":
            if self.trigger is None:
                raise DataError("The data have no trigger. Needed: --data.trigger Trigger --data.trigger.fraction 0.05")
            samples, index = self.part("test")
            return self._triggered_test, index[samples.targets[index] != self.trigger.target]
        if name == "train":
            return self.samples, torch.cat([self.parts.retain, self.parts.forget]).sort().values
        if name == "test":
            return self.dataset.test, self._still_unseen(self.dataset.test, self._test_halves[1])
        if name == "unseen" and isinstance(self.unseen, VisionData) and not (self.saved and self.saved.unseen):
            return self.unseen.train, self._still_unseen(self.unseen.train, torch.arange(len(self.unseen.train)), "unseen")
        if name == "unseen" and self.halves_the_test_set:
            return self.dataset.test, self._still_unseen(self.dataset.test, self._test_halves[0])
        index = getattr(self.parts, name)
        # A model that is being watched or imitated must not meet the attacker's patch in what stands for unseen.
        return (self.untriggered, self._of_other_classes(self.samples, index)) if name == "unseen" else (self.samples, index)

    def _still_unseen(self, samples: Samples, index: Tensor, whose: Literal["test", "unseen"] = "test") -> Tensor:
        """Samples from outside the training set without those that a stage of an earlier request trained on."""
        outside = [] if self.saved is None else self.saved.outside
        # A hash of the content means the same image in every set, a path in its own alone.
        used = {name.partition("/")[2] for name in outside if samples.by_content or name.startswith(f"{whose}/")}
        index = index[[samples.keys[i] not in used for i in index.tolist()]] if used else index
        return self._of_other_classes(samples, index)

    def _of_other_classes(self, samples: Samples, index: Tensor) -> Tensor:
        """Samples without those of classes that earlier requests removed as a whole: nobody asks for these any more."""
        gone = self.removed_classes
        return index[~torch.isin(samples.targets[index], gone)] if len(gone) else index

    @cached_property
    def _triggered_test(self) -> Samples:
        assert self.trigger is not None
        return self.trigger.on_all(self.dataset.test)

    def random_part(self, name: Part, count: int | None, purpose: str, seed: int = 0, among: Tensor | None = None) -> Tensor:
        """Random samples of a part, without replacement; two purposes or seeds draw independently.

        Args:
            name: See `part`.
            count: How many; None, or more than there are: all.
            purpose: What they are for.
            seed: Seed of the draw; 0 where every run is to look at the same samples.
            among: Only these samples of the part.

        Returns:
            Sample indices, (min(count, N),), sorted, int64.
        """
        samples, index = self.part(name)
        index = index if among is None else among
        return index[order(samples.hashes[index], seed, purpose)[:count]].sort().values

    @cached_property
    def gone_classes(self) -> Tensor:
        """Labels of samples that are forgotten, now or by an earlier request, of which none is retained (C,), int64, sorted."""
        split = self.saved_split()
        gone = [*split.forget, *split.removed]
        return classes_without(self.samples, gone, split.retain, self.num_classes, split.labels)

    @cached_property
    def removed_classes(self) -> Tensor:
        """Labels of which earlier requests removed the last sample, (C,), int64, sorted: no part has them, not even test."""
        if self.saved is None or not self.saved.removed:
            return torch.empty(0, dtype=torch.int64)
        kept = [*self.saved.retain, *self.saved.forget]
        return classes_without(self.samples, self.saved.removed, kept, self.num_classes, self.saved.labels)

    @property
    def unseen_of_retained_classes(self) -> Tensor:
        """Unseen samples of classes that are retained, (U,), int64: others the network does not know, or is to forget."""
        samples, index = self.part("unseen")
        return index[torch.isin(samples.targets[index], self.samples.targets[self.parts.retain])]

    @property
    def unseen_remedy(self) -> str:
        """What gives unseen samples, or more of them: a sentence for messages."""
        return remedy(settled=self.saved is not None)

    @property
    def forgets_whole_classes(self) -> bool:
        """Whether something is forgotten, and no class of a forgotten sample has retained ones."""
        forgotten = self.samples.targets[self.parts.forget]
        return len(forgotten) > 0 and bool(torch.isin(forgotten, self.gone_classes).all())

    @property
    def forgotten_classes(self) -> list[int]:
        """Labels of the classes that are forgotten as a whole, sorted; empty where the split is not by class."""
        return sorted(set(self.samples.targets[self.parts.forget].tolist())) if self.forgets_whole_classes else []

    @property
    def copies(self) -> list[tuple[str, str]] | None:
        """Pairs of keys: a forgotten sample, and a retained one with exactly the same content; None: see `copies_left`."""
        return copies_left(self.samples, self.parts.forget, self.parts.retain)

    def example(self, count: int = 2) -> Tensor:
        """A few normalised retained images, to see whether a model takes them.

        Args:
            count: How many.

        Returns:
            (count, C, H, W), float32, on the CPU.
        """
        pixels = torch.stack([self.samples.images[int(i)] for i in self.parts.retain[:count]]).float() / 255
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.dataset.mean, self.dataset.std))
        return (pixels - mean) / std

    def saved_split(self, everything_trained: bool = False, unseen_trained: bool = False) -> SavedSplit:
        """The keys of all parts, to be saved beside a checkpoint.

        Args:
            everything_trained: Whether the model was trained on what is to be forgotten too.
            unseen_trained: Whether a stage trains on the unseen samples: those of classes that are retained are retained
                ones from then on.

        Returns:
            Keys of the forgotten, retained, unseen and earlier removed samples, also of those whose files are gone.
        """
        parts = self.parts
        forget, retain, unseen = parts.forget, parts.retain, parts.unseen
        saved = self.saved
        outside, withdrawn = ([], []) if saved is None else (saved.outside, saved.withdrawn)
        if everything_trained:
            forget, retain = forget[:0], torch.cat([forget, retain]).sort().values
            # Nothing was asked for yet.
            unseen = torch.cat([unseen, positions(parts.withdrawn, self.samples)]).sort().values
        else:
            withdrawn = [*withdrawn, *parts.withdrawn]
        if unseen_trained:
            samples, used = self.part("unseen")[0], self.unseen_of_retained_classes
            if samples is self.untriggered:
                retain, unseen = torch.cat([retain, used]).sort().values, unseen[~torch.isin(unseen, used)]
            else:
                where = "test" if samples is self.dataset.test else "unseen"
                outside = [*outside, *(f"{where}/{samples.keys[i]}" for i in used.tolist())]
        keys = [[self.samples.keys[i] for i in part.tolist()] for part in (forget, retain, unseen, parts.removed)]
        if saved is not None:
            there = {*self.samples.keys, *withdrawn}
            old = (saved.forget, saved.retain, saved.unseen, saved.removed)
            keys = [[*now, *(key for key in before if key not in there)] for now, before in zip(keys, old, strict=True)]
        whose = (list(self.dataset.classes), self.dataset.name, self.dataset.place)
        # What the model learnt counts, also where this object has other labels.
        altered = self.altered if saved is None else saved.altered
        how = (list(self.dataset.mean), list(self.dataset.std), self.samples.by_content)
        labels = ({} if saved is None else saved.labels) | self.samples.labels
        labels = {key: labels[key] for key in {*withdrawn, *chain(*keys)} if key in labels}
        return SavedSplit(keys[0], keys[1], keys[2], keys[3], *whose, list(outside), altered, list(withdrawn), *how, labels)

    def fingerprint(self, view: View | Part) -> str:
        """A hash of the samples of a view, the same however they are split: keys, labels, contents as `stamp` has them.

        Args:
            view: `train`, `retain`, `forget`, `unseen` or `test`.

        Returns:
            64 hexadecimal digits.
        """
        samples, index = self.part(view)  # type: ignore[arg-type]  # views of two parts have no fingerprint
        return fingerprint_of(samples, index, self.dataset.name, repr(self.trigger))
