"""From arrays to `Samples`: images and labels, each checked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.vision import Images, Samples, content_keys, stamp
from lightning_unlearn.exceptions import DataError

__all__ = [
    "Picked",
    "as_images",
    "as_labels",
    "channel_statistics",
    "numbered_classes",
    "pick",
    "resident_samples",
    "subset",
]


def as_images(values: npt.ArrayLike, what: str) -> Tensor:
    """Images in the layout of this package.

    Args:
        values: (N, H, W), (N, H, W, C) or (N, C, H, W), uint8, C 1 or 3.
        what: Where they come from, for messages.

    Returns:
        (N, C, H, W), uint8.

    Raises:
        DataError: They have another type or shape.
    """
    array = np.asarray(values)
    if array.dtype != np.uint8:
        hint = ""
        if array.dtype.kind == "f" and array.size:
            low, high = float(np.min(array)), float(np.max(array))
            if not np.isfinite(low) or not np.isfinite(high):
                hint = " They hold NaN or infinity."
            elif low >= 0 and high <= 1:
                hint = " They run from 0 to 1: store (images * 255).round().astype('uint8')."
            elif low < 0:
                hint = " They look normalised: store them as they were before."
        raise DataError(f"The images of {what} are {array.dtype}; needed: uint8, 0 to 255.{hint}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if first and last:
            raise DataError(f"The images of {what} are {array.shape}: channels first, or last? Needed: larger ones.")
        if last:
            array = array.transpose(0, 3, 1, 2)
        elif not first:
            raise DataError(f"The images of {what} are {array.shape}; needed: 1 or 3 channels, first or last.")
    else:
        raise DataError(f"The images of {what} are {array.shape}; needed: (N, H, W), (N, H, W, C) or (N, C, H, W).")
    return torch.from_numpy(np.ascontiguousarray(array))


def as_labels(values: npt.ArrayLike, what: str) -> Tensor:
    """Labels, checked to be class numbers.

    Args:
        values: (N,), integers from 0.
        what: Where they come from, for messages.

    Returns:
        (N,), int64.

    Raises:
        DataError: They are not integers, one-hot, negative, or too large.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(
            f"The labels of {what} have the shape {array.shape}, one-hot perhaps; "
            "needed: one integer per image. Pass labels.argmax(1)."
        )
    if array.ndim != 1:
        raise DataError(f"The labels of {what} are {array.shape}; needed: one integer per image, (N,).")
    if array.dtype.kind not in "iu":
        raise DataError(
            f"The labels of {what} are {array.dtype}; needed: integers from 0, one per class. "
            "Convert them with .astype('int64') where they are whole numbers."
        )
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"The labels of {what} reach {array.max()}; needed: integers from 0, one for each class.")
    if array.size and int(array.min()) < 0:
        bad = np.flatnonzero(array < 0)
        raise DataError(
            f"{len(bad)} labels of {what} are negative, {array[bad[0]]} at position {bad[0]} the first; "
            "needed: integers from 0. Remove samples without a label."
        )
    return torch.from_numpy(array.astype(np.int64))


def resident_samples(images: npt.ArrayLike, labels: npt.ArrayLike, what: str, keys: Sequence[str] | None = None) -> Samples:
    """Samples whose images are held in memory.

    Args:
        images: See `as_images`.
        labels: See `as_labels`.
        what: Where they come from, for messages.
        keys: Their keys; None: hashes of their content.

    Returns:
        The samples.
    """
    pixels = as_images(images, what)
    own = content_keys(pixels) if keys is None else keys
    return Samples(pixels, as_labels(labels, what), own, by_content=keys is None)


def subset(samples: Samples, size: int | None) -> Samples:
    """A fixed random part of the samples, in their order; the same whenever a sample of the rest is missing.

    Args:
        samples: All of them.
        size: How many are kept; None: all.

    Returns:
        The part.

    Raises:
        DataError: There are fewer, or `size` is below 1.
    """
    if size is None:
        return samples
    if isinstance(size, bool) or not 1 <= size <= len(samples):
        raise DataError(f"train_size is {size}; needed: 1 to {len(samples)}, or none for all of them.")
    return pick(samples, order(samples.hashes, 0, "subset")[:size].sort().values)


class Picked:
    """Some images of a set that is read one at a time.

    Args:
        images: The set.
        index: Which of its images.
    """

    def __init__(self, images: Images, index: Sequence[int]) -> None:
        self.images, self.index = images, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[self.index[index]]

    def stamp(self, index: int) -> bytes:
        """See `Stamped`; nothing where the set has none.

        Args:
            index: Which.

        Returns:
            Its stamp.
        """
        return stamp(self.images, self.index[index])


def pick(samples: Samples, index: Tensor) -> Samples:
    """Some of the samples.

    Args:
        samples: Samples; their images may be read one at a time.
        index: Which, (M,), int64.

    Returns:
        M samples.
    """
    chosen = index.tolist()
    images = samples.images[index] if isinstance(samples.images, Tensor) else Picked(samples.images, chosen)
    return replace(
        samples,
        images=images,
        targets=samples.targets[index],
        keys=[samples.keys[i] for i in chosen],
        attributes={name: [column[i] for i in chosen] for name, column in samples.attributes.items()},
        true_targets=None if samples.true_targets is None else samples.true_targets[index],
    )


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel.

    Args:
        images: (N, C, H, W), uint8.

    Returns:
        C means and C deviations, of pixels in 0 ... 1; the deviation of a constant channel is 1.
    """
    # Through counts of the 256 levels: exact, and without a copy of the images as floats.
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.transpose(0, 1)]).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    weight = counts / counts.sum(1, keepdim=True)
    mean = weight @ levels
    std = (weight * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.tolist(), torch.where(std > 0, std, 1.0).tolist()


def numbered_classes(train: Tensor, test: Tensor) -> list[str]:
    """Names for classes that have none; a gap in the labels would be a class that nothing belongs to.

    Args:
        train: Labels of the training part, (N,), int64.
        test: Labels of the test part, (M,), int64.

    Returns:
        The labels as text.

    Raises:
        DataError: No sample has a label below the highest one.
    """
    present = sorted(set(train.tolist()) | set(test.tolist()))
    if present[-1] != len(present) - 1:
        gap = next(i for i, label in enumerate(present) if label != i)
        raise DataError(
            f"No sample has the label {gap}, but labels reach {present[-1]}; needed: labels from 0 "
            "without a gap, or the number or names of all classes."
        )
    return [str(i) for i in range(len(present))]
