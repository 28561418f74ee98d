"""Any map-style data sets of images and labels as one data set."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_unlearn.data.reading import as_labels, channel_statistics, numbered_classes, subset
from lightning_unlearn.data.request import nearest
from lightning_unlearn.data.vision import SAME_PARTS, Samples, Statistics, VisionData, content_keys, normalisation
from lightning_unlearn.exceptions import DataError

__all__ = ["FromDatasets"]

if TYPE_CHECKING:
    LabelledImages = Dataset[tuple[object, object]]
else:
    # The command line finds no arguments of a class below a subscripted type.
    LabelledImages = Dataset

log = logging.getLogger(__name__)

# Means of sets that are read one at a time are estimated on so many images, spread evenly.
_SPOT_CHECK = 1000
# Labels of a list that are compared with what the data set gives, spread evenly.
_LABELS_READ = 20


class _Lazy:
    """The images of a map-style data set, read one at a time."""

    def __init__(self, dataset: LabelledImages, length: int, what: str) -> None:
        self.dataset, self.length, self.what = dataset, length, what
        self.shape = _image(dataset[0], f"{what}, sample 0").shape

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        image = _image(self.dataset[index], f"{self.what}, sample {index}")
        if image.shape != self.shape:
            raise DataError(
                f"Image {index} of {self.what} is {tuple(image.shape)} and image 0 {tuple(self.shape)}; "
                "needed: one size. Resize and crop them in the data set's transform."
            )
        return image


class FromDatasets(VisionData):
    """Any two map-style data sets that give (image, label), torchvision's among them.

    A data set with `samples`, a list of (path, label), is read one image at a time, and its keys are the
    paths; its `target_transform` counts. Others are held in memory, with hashes of the content as keys.

    Args:
        name: Name in reports.
        train: Training part. Images are PIL images, uint8 tensors (C, H, W), or float tensors in 0 ... 1,
            without random augmentation: that belongs to the DataModule, and keys need the same image each
            time.
        test: Test part. Where both parts name their `classes` and these differ, its labels are brought to those of the
            training part by the names; not where a part has a `target_transform`, whose labels count as they are.
        num_classes: Number of classes; None: the number of `classes` that the training part names, or the
            labels.
        train_size: Training samples that are kept; None: all.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: measured on the training images.
        std: Per-channel deviation that is then divided by; see `mean`.

    Raises:
        DataError: A part gives something else, or another image each time; or the test part has a class that the training part
            has not.
    """

    measures = True

    def __init__(
        self,
        name: str,
        train: LabelledImages,
        test: LabelledImages,
        num_classes: int | None = None,
        train_size: int | None = None,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        if train is test:
            log.warning(SAME_PARTS, name)
        first, second = _read(train, f"{name} (training)"), _read(test, f"{name} (test)")
        classes, others = _class_names(train), _class_names(test)
        transformed = any(callable(getattr(part, "target_transform", None)) for part in (train, test))
        if classes and others and classes != others and not transformed:
            second = _by_name(second, others, classes, name)
        if classes is None or len(classes) != (num_classes or len(classes)):
            count = num_classes or len(numbered_classes(first.targets, second.targets))
            classes = [str(i) for i in range(count)]
        named = dict(enumerate(classes))
        if all(key.startswith(f"{named.get(label)}/") for key, label in zip(first.keys, first.targets.tolist(), strict=True)):
            # As torchvision's ImageFolder has them.
            first = replace(first, folders=classes)
        images = first.images
        if not isinstance(images, Tensor):
            step = max(1, len(images) // _SPOT_CHECK)
            images = torch.stack([images[i] for i in range(0, len(images), step)])
        statistics = normalisation(mean, std, *channel_statistics(images))
        super().__init__(name, subset(first, train_size), second, classes, *statistics)
        root = getattr(train, "root", None)
        self.place = str(Path(root).resolve()) if isinstance(root, str | PurePath) else ""


def _class_names(dataset: LabelledImages) -> list[str] | None:
    given = getattr(dataset, "classes", None)
    return [str(c) for c in given] if isinstance(given, Sequence) and not isinstance(given, str) else None


def _by_name(test: Samples, names: list[str], classes: list[str], what: str) -> Samples:
    """Test samples with the labels that the training part has for classes of these names."""
    known, used = Counter(classes), {*test.targets.tolist()}
    strange = next((name for label, name in enumerate(names) if label in used and known[name] != 1), None)
    if strange is not None:
        raise DataError(
            f"The test part of {what} has a class {strange!r}, and the training part has {known[strange]} of that name; "
            f"needed: one.{nearest(strange, classes)} Name them alike, or leave out the classes of the test part alone."
        )
    highest = int(test.targets.max())
    if highest >= len(names):
        raise DataError(
            f"The test part of {what} has the label {highest} and names {len(names)} classes; needed: a name for each label in "
            "`classes`."
        )
    labels = {name: label for label, name in enumerate(classes)}
    return replace(test, targets=torch.tensor([labels.get(name, 0) for name in names])[test.targets])


def _read(dataset: LabelledImages, what: str) -> Samples:
    try:
        length = len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(f"{what} has no length; needed: a map-style data set.") from error
    if length == 0:
        raise DataError(f"{what} holds no sample; needed: at least one.")
    if not torch.equal(_image(dataset[0], f"{what}, sample 0"), _image(dataset[0], f"{what}, sample 0")):
        raise DataError(
            f"{what} gives another image each time, through a random transform perhaps; "
            "needed: the same one. Augmentation belongs to the DataModule."
        )
    paths = getattr(dataset, "samples", None)
    if isinstance(paths, Sequence) and len(paths) == length and isinstance(paths[0][0], str | PurePath):
        labels = as_labels(_listed_labels(dataset, [label for _, label in paths], what), what)
        return Samples(_Lazy(dataset, length, what), labels, _relative([str(path) for path, _ in paths], dataset))
    images, labels_given = [], []
    shape: torch.Size | None = None
    for i in range(length):
        sample = dataset[i]
        image = _image(sample, f"{what}, sample {i}")
        shape = shape or image.shape
        if image.shape != shape:
            raise DataError(
                f"Image {i} of {what} is {tuple(image.shape)} and image 0 {tuple(shape)}; "
                "needed: one size. Resize and crop them in the data set's transform."
            )
        images.append(image)
        labels_given.append(_label(sample[1], f"{what}, sample {i}"))
    stacked = torch.stack(images)
    return Samples(stacked, as_labels(labels_given, what), content_keys(stacked), by_content=True)


def _listed_labels(dataset: LabelledImages, labels: Sequence[object], what: str) -> list[int]:
    """The labels of a list, as the data set gives them: changed by its `target_transform`, where it has one."""
    change = getattr(dataset, "target_transform", None)
    given = [_label(change(label) if callable(change) else label, f"{what}, sample {i}") for i, label in enumerate(labels)]
    for i in range(0, len(given), -(-len(given) // _LABELS_READ)):
        sample = dataset[i]
        _image(sample, f"{what}, sample {i}")
        label = _label(sample[1], f"{what}, sample {i}")
        if label != given[i]:
            raise DataError(
                f"{what} gives sample {i} the label {label}, and its list `samples` says {given[i]}; needed: the same. Change "
                "labels in a `target_transform`, or in the list."
            )
    return given


def _relative(paths: list[str], dataset: object) -> list[str]:
    root = getattr(dataset, "root", None)
    start = str(root) if isinstance(root, str | PurePath) else os.path.commonpath([os.path.dirname(p) for p in paths])
    keys = [Path(os.path.relpath(path, start)).as_posix() for path in paths]
    if len(set(keys)) < len(keys):
        raise DataError("The data set lists one path twice in `samples`; needed: each file once.")
    return keys


def _image(sample: object, what: str) -> Tensor:
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise DataError(f"{what} is a {type(sample).__name__}; needed: a pair of an image and a label.")
    image = sample[0]
    if isinstance(image, Image.Image):
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        image = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    if not isinstance(image, Tensor):
        raise DataError(f"{what}: the image is a {type(image).__name__}; needed: a PIL image or a tensor (C, H, W).")
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"{what}: the image is {tuple(image.shape)}; needed: (C, H, W) with 1 or 3 channels.")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):
        raise DataError(
            f"{what}: the image is {image.dtype} with values from {image.min():.3g} to {image.max():.3g}; "
            "needed: uint8, or float in 0 ... 1. Leave the normalisation to this package."
        )
    return (image * 255).round().to(torch.uint8)


def _label(label: object, what: str) -> int:
    if isinstance(label, Tensor | np.generic):
        if label.ndim > 0:
            raise DataError(f"{what}: the label has the shape {tuple(label.shape)}; needed: one integer, not one-hot.")
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise DataError(f"{what}: the label is {label!r}; needed: an integer from 0.")
    return label
