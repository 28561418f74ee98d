"""The form in which every data set reaches this package: images, labels and stable keys."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from lightning_unlearn.data.saved_split import Former
from lightning_unlearn.exceptions import DataError

__all__ = [
    "SAME_PARTS",
    "Images",
    "Samples",
    "Stamped",
    "Statistics",
    "VisionData",
    "content_keys",
    "fingerprint_of",
    "hash_of_key",
    "hash_of_pixels",
    "is_content_key",
    "normalisation",
    "stamp",
]

SAME_PARTS = (
    "%s is the training part and the test part: figures on test samples then say nothing, and what stands for unseen was "
    "trained on. Give another test part."
)
# What `content_keys` gives.
_CONTENT_KEY = re.compile(r"[0-9a-f]{16}(#[0-9]+)?")
# One number for all channels, or one for each; None: those of the data set.
Statistics: TypeAlias = float | list[float] | None


class Images(Protocol):
    """Images that are read one at a time, for sets that are too large to hold."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """The image at `index`: (C, H, W), uint8."""
        ...


@runtime_checkable
class Stamped(Protocol):
    """`Images` that can tell whether one was replaced without reading it whole."""

    def stamp(self, index: int) -> bytes:
        """Bytes that change with the image at `index`."""
        ...


@dataclass(frozen=True)
class Samples:
    """One part (training or test) of a data set.

    Attributes:
        images: (N, C, H, W), uint8, or an `Images` that reads them one at a time.
        targets: Labels, (N,), int64, in 0 ... K - 1.
        keys: One stable name per sample, all different.
        attributes: Columns of a table beside the data (owner, subclass ...), each with one value per sample.
        named_attributes: The same columns by what the table calls samples, with its rows of samples that are not here; empty
            where rows have no names.
        folders: Folders that keys begin with, one for each class in the order of the labels; empty where keys tell no class.
        true_targets: Labels before noise was added, where it was; else None.
        triggered: Which samples a `Trigger` poisoned, (N,), bool; None where there is none.
        former: What a checkpoint's split knows of samples that are gone; None where there is no such split.
        by_content: Whether keys are those of `content_keys`, which no other image has. Keys of the user's may look alike.
    """

    images: Tensor | Images
    targets: Tensor
    keys: Sequence[str]
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    named_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict, kw_only=True)
    folders: Sequence[str] = field(default=(), kw_only=True)
    true_targets: Tensor | None = None
    former: Former | None = None
    triggered: Tensor | None = None
    by_content: bool = False

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.targets.shape != (n,) or len(self.keys) != n:
            raise DataError(
                f"{n} images with labels of shape {tuple(self.targets.shape)} and {len(self.keys)} keys; "
                "needed: one integer label and one key per image. One-hot labels: pass their argmax."
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def stamps(self) -> list[bytes]:
        """What `stamp` says of each image, read once."""
        return [stamp(self.images, i) for i in range(len(self.keys))]

    @cached_property
    def _contents(self) -> dict[int, bytes]:
        return {}

    def content(self, index: int) -> bytes:
        """A hash of an image's pixels, read once; see `hash_of_pixels`.

        Args:
            index: Which.

        Returns:
            16 bytes.
        """
        if index not in self._contents:
            self._contents[index] = hash_of_pixels(self.images[index])
        return self._contents[index]

    def with_former(self, former: Former) -> "Samples":
        """The same samples beside what a checkpoint's split knows; what was computed of them once is kept.

        Args:
            former: See the attribute.

        Returns:
            A copy that shares everything.
        """
        other = replace(self, former=former)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name not in other.__dict__})
        return other

    @cached_property
    def labels(self) -> dict[str, int]:
        """The label of each sample by its key."""
        return dict(zip(self.keys, self.targets.tolist(), strict=True))

    @cached_property
    def hashes(self) -> Tensor:
        """64 bits of a hash of every key, (N,), int64: what random draws about a sample are seeded with."""
        return torch.tensor([hash_of_key(k) for k in self.keys], dtype=torch.int64)


class VisionData:
    """A data set for classification. The shipped ones are subclasses that read their files in `__init__`.

    Args:
        name: Short name, for reports and paths.
        train: The training part, from which the unseen part is carved.
        test: The test part; it only ever reports.
        classes: Names of the classes, in the order of the labels.
        mean: Per-channel mean of the images in 0 ... 1.
        std: Per-channel standard deviation of the images in 0 ... 1.
        given: Which of `mean` and `std` the user chose: a checkpoint that was trained with others is refused. Those that are
            measured or usual give way to the checkpoint's.

    Raises:
        DataError: A part is empty, or a label is outside the classes.

    Attributes:
        has_images: Whether images can be read; not so of a data set that only names classes.
        place: Folder or file that holds the training part, resolved: what tells two sets of equal names and keys apart. Empty
            where it is not known.
        as_given: The data set with its own normalisation, where this one has a checkpoint's; else None.
        measures: Whether `mean` and `std` are measured on the training images where they are not given.
    """

    has_images: bool = True
    place: str = ""
    as_given: "VisionData | None" = None
    measures: bool = False

    def __init__(
        self,
        name: str,
        train: Samples,
        test: Samples,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        given: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.train = train
        self.test = test
        self.classes = list(classes)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.given = tuple(given)
        for part, samples in (("training", train), ("test", test)):
            if len(samples) == 0:
                raise DataError(f"The {part} part of {name} holds no sample; needed: at least one.")
            low, high = int(samples.targets.min()), int(samples.targets.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"Labels of the {part} part of {name} run from {low} to {high}; needed: 0 to "
                    f"{self.num_classes - 1}, one per class name. Remove or relabel the samples outside."
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def input(self) -> str:
        """What a model is given, in one line."""
        channels, height, width = self.train.images[0].shape
        kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{kind} {height}x{width}, minus mean {mean}, divided by {std} (of pixels in 0 ... 1)"


def normalisation(
    mean: Statistics, std: Statistics, usual_mean: Sequence[float], usual_std: Sequence[float]
) -> tuple[list[float], list[float], list[str]]:
    """What is taken from images and what they are divided by.

    Args:
        mean: Of pixels in 0 ... 1, one number for all channels or one for each; None: the usual one.
        std: The same, above 0.
        usual_mean: Per-channel mean where none is given.
        usual_std: Per-channel deviation where none is given.

    Returns:
        C means, C deviations, and which of `mean` and `std` were given: the last arguments of `VisionData`.

    Raises:
        DataError: A list has another length than there are channels, a deviation is not above 0, or a number is above 1.
    """
    channels = len(usual_mean)
    found = []
    for name, given, usual in (("mean", mean, usual_mean), ("std", std, usual_std)):
        values = list(usual) if given is None else [given] * channels if isinstance(given, int | float) else list(given)
        if len(values) != channels:
            raise DataError(f"{name} is {given} and images have {channels} channels; needed: one number, or {channels}.")
        if not all(math.isfinite(value) for value in values) or (name == "std" and min(values) <= 0):
            raise DataError(
                f"{name} is {given}; needed: finite numbers{', above 0' if name == 'std' else ''}, of pixels in 0 ... 1."
            )
        if given is not None and max(values) > 1:
            rest = (
                "" if max(values) > 255 else f" For pixels in 0 ... 255 that is {', '.join(f'{v / 255:.4g}' for v in values)}."
            )
            raise DataError(f"{name} is {given}; needed: of pixels in 0 ... 1, so 1 at most.{rest}")
        found.append([float(value) for value in values])
    return found[0], found[1], [name for name, given in (("mean", mean), ("std", std)) if given is not None]


def hash_of_key(key: str) -> int:
    """A signed 64-bit hash of a key, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)


def fingerprint_of(samples: Samples, index: Tensor, name: str, trigger: str) -> str:
    """A hash of samples: keys, labels, and contents as `stamp` has them where keys do not tell.

    Args:
        samples: The set that they lie in.
        index: Which, (N,), int64.
        name: Name of the data set.
        trigger: What the patch of a trigger is, in words.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(name.encode())
    digest.update(samples.hashes[index].numpy().tobytes())
    digest.update(samples.targets[index].numpy().tobytes())
    if not samples.by_content:
        # Other images may lie under the same names.
        digest.update(b"".join(samples.stamps[i] for i in index.tolist()))
    if samples.triggered is not None and bool(samples.triggered[index].any()):
        # Their pixels are not what their keys say.
        digest.update(trigger.encode())
    return digest.hexdigest()


def hash_of_pixels(image: Tensor) -> bytes:
    """A hash of an image's shape and pixels.

    Args:
        image: (C, H, W), uint8.

    Returns:
        16 bytes.
    """
    pixels = image.contiguous().numpy().tobytes()
    return hashlib.blake2b(str(tuple(image.shape)).encode() + pixels, digest_size=16).digest()


def stamp(images: Tensor | Images, index: int) -> bytes:
    """What tells an image from another one under the same key, as far as that is cheap.

    Args:
        images: Images.
        index: Which.

    Returns:
        A hash of the pixels of images in memory, what `Stamped` images say, or nothing.
    """
    if isinstance(images, Tensor):
        return hash_of_pixels(images[index])
    return images.stamp(index) if isinstance(images, Stamped) else b""


def is_content_key(key: str) -> bool:
    """Whether a key has the form of those of `content_keys`; see also `Samples.by_content`.

    Args:
        key: A key.

    Returns:
        Whether it has.
    """
    return _CONTENT_KEY.fullmatch(key) is not None


def content_keys(images: Tensor) -> list[str]:
    """Keys of images by their content: 16 hexadecimal digits, `#2`, `#3` ... behind the second, third ... exact copy.

    Args:
        images: (N, C, H, W), uint8.

    Returns:
        N different keys.
    """
    seen: dict[str, int] = {}
    keys = []
    for image in images.contiguous().numpy():
        digest = hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest()
        seen[digest] = seen.get(digest, 0) + 1
        keys.append(digest if seen[digest] == 1 else f"{digest}#{seen[digest]}")
    return keys
