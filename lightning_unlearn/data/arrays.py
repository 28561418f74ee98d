"""Data sets of the user: arrays in `.npz` files, and any map-style data sets of images and labels."""

import logging
import os
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_unlearn.data.reading import as_labels, channel_statistics, resident_samples, subset
from lightning_unlearn.data.request import nearest
from lightning_unlearn.data.tables import class_list, read_attributes
from lightning_unlearn.data.vision import SAME_PARTS, Samples, Statistics, VisionData, content_keys, normalisation
from lightning_unlearn.exceptions import DataError

__all__ = ["Arrays", "FromDatasets", "load_npz", "read_arrays"]

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


def load_npz(path: str | Path) -> Samples:
    """Samples in a `.npz` file.

    Args:
        path: The file, with the arrays `images` (N, H, W), (N, H, W, C) or (N, C, H, W), uint8; `labels`
            (N,), integers; and, if the samples have names, `keys` (N,), texts.

    Returns:
        The samples, held in memory.

    Raises:
        DataError: The file is missing or damaged, lacks an array, or one of them cannot be used.
    """
    path = Path(path)
    arrays = read_arrays(path, ("images", "labels"), "a .npz file with `images` and `labels`", ("keys",))
    keys: list[str] | None = None
    if "keys" in arrays:
        names = arrays["keys"]
        if names.ndim != 1 or names.dtype.kind not in "Uiu":
            raise DataError(
                f"The `keys` of {path} are {names.dtype} of the shape {names.shape}; needed: one text for each sample, (N,). "
                "numpy.char.decode(keys, 'utf-8') makes texts of bytes."
            )
        keys = [str(key) for key in names.tolist()]
        if len(set(keys)) < len(keys):
            raise DataError(f"{path} names samples twice in `keys`; needed: one name for each.")
    return resident_samples(arrays["images"], arrays["labels"], str(path), keys)


def read_arrays(path: Path, wanted: Sequence[str], needed: str, optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Arrays in a `.npz` file.

    Args:
        path: The file.
        wanted: Names of arrays that have to be there.
        needed: What the file should be, for messages.
        optional: Names of arrays that may be.

    Returns:
        By name, those that are there.

    Raises:
        DataError: The file is missing or damaged, or lacks an array.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*wanted, *optional) if name in file}
            names = list(file.keys())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; needed: {needed}.") from None
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        # Damaged headers: an unknown way of packing (NotImplementedError) or a password, and what is no Python.
        RuntimeError,
        SyntaxError,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} cannot be read as .npz ({error}); write it with numpy.savez.") from error
    if missing := [name for name in wanted if name not in arrays]:
        raise DataError(f"{path} holds {', '.join(names) or 'nothing'}; missing: {', '.join(missing)}.")
    return arrays


class Arrays(VisionData):
    """A data set in two `.npz` files.

    Args:
        train: Training part, see `load_npz`.
        test: Test part.
        classes: Names of the classes in the order of the labels, or a text file with one per line; None: the
            labels.
        attributes: A `.csv` table of the training samples (owner, subclass ...): a header and one row per
            sample in their order, or with a column `index` or `key`; where samples may go, with `key`.
        train_size: Training samples that are kept; None: all.
        name: Name in reports; None: that of the training file's folder.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: measured on the training images.
        std: Per-channel deviation that is then divided by; see `mean`.

    Raises:
        DataError: A file cannot be used, or both do not fit together.
    """

    measures = True

    def __init__(
        self,
        train: str | Path,
        test: str | Path,
        classes: str | Path | list[str] | None = None,
        attributes: str | Path | None = None,
        train_size: int | None = None,
        name: str | None = None,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        first, second = load_npz(train), load_npz(test)
        images, others = cast(Tensor, first.images), cast(Tensor, second.images)
        if torch.equal(images, others):
            log.warning(SAME_PARTS, test)
        if images.shape[1:] != others.shape[1:]:
            raise DataError(
                f"Training images are {tuple(images.shape[1:])} and test images {tuple(others.shape[1:])} "
                "(channels, height, width); needed: the same. Convert one of them."
            )
        if len(first) == 0:
            raise DataError(f"{train} holds no sample; needed: at least one.")
        names = _numbered(first.targets, second.targets) if classes is None else [n for _, n in class_list(classes)]
        if attributes is not None:
            table = read_attributes(attributes, first.keys, positional=True)
            first = replace(first, attributes=table.columns, named_attributes=table.named)
        statistics = normalisation(mean, std, *channel_statistics(images))
        title = name or Path(train).resolve().parent.name or "arrays"
        super().__init__(title, subset(first, train_size), second, names, *statistics)
        self.place = str(Path(train).resolve())


def _numbered(train: Tensor, test: Tensor) -> list[str]:
    """Names for classes that have none; a gap in the labels would be a class that nothing belongs to."""
    present = sorted(set(train.tolist()) | set(test.tolist()))
    if present[-1] != len(present) - 1:
        gap = next(i for i, label in enumerate(present) if label != i)
        raise DataError(
            f"No sample has the label {gap}, but labels reach {present[-1]}; needed: labels from 0 "
            "without a gap, or the number or names of all classes."
        )
    return [str(i) for i in range(len(present))]


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
            count = num_classes or len(_numbered(first.targets, second.targets))
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
    known = Counter(classes)
    strange = next((name for name in names if known[name] != 1), None)
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
    return replace(test, targets=torch.tensor([labels[name] for name in names])[test.targets])


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
