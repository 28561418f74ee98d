"""Data sets of the user that lie as arrays in `.npz` files."""

import logging
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_unlearn.data.reading import channel_statistics, numbered_classes, resident_samples, subset
from lightning_unlearn.data.tables import class_list, read_attributes
from lightning_unlearn.data.vision import SAME_PARTS, Samples, Statistics, VisionData, normalisation
from lightning_unlearn.exceptions import DataError

__all__ = ["Arrays", "load_npz", "read_arrays"]

log = logging.getLogger(__name__)


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
        names = numbered_classes(first.targets, second.targets) if classes is None else [n for _, n in class_list(classes)]
        if attributes is not None:
            table = read_attributes(attributes, first.keys, positional=True)
            first = replace(first, attributes=table.columns, named_attributes=table.named)
        statistics = normalisation(mean, std, *channel_statistics(images))
        title = name or Path(train).resolve().parent.name or "arrays"
        super().__init__(title, subset(first, train_size), second, names, *statistics)
        self.place = str(Path(train).resolve())
