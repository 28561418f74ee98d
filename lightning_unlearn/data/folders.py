"""Images in folders, one folder per class, read one at a time."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_unlearn.data.reading import subset
from lightning_unlearn.data.request import nearest
from lightning_unlearn.data.tables import class_list, read_attributes
from lightning_unlearn.data.vision import SAME_PARTS, Samples, Statistics, VisionData, normalisation
from lightning_unlearn.exceptions import DataError

__all__ = ["FolderImages", "ImageFolder", "read_image"]

log = logging.getLogger(__name__)

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
# Bytes of a file that are read to see whether it was replaced: one block.
_STAMPED = 4096
# Mean and deviation of ImageNet's training images, as pretrained networks expect them.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Classes without a test folder that are named; of more the number is said.
_NAMED = 3
# The means of these over the three channels.
_GREY = (0.449,), (0.226,)


def read_image(path: str | Path, size: int, channels: Literal[1, 3] = 3) -> Tensor:
    """An image file as RGB or grey: the shorter side resized, the centre cropped.

    Args:
        path: Any file that PIL reads. Grey, palette, CMYK and 16-bit images are converted; alpha is dropped.
        size: Height and width of the result.
        channels: 3 for RGB, 1 for grey (PIL's mix of the colours).

    Returns:
        (channels, size, size), uint8.

    Raises:
        DataError: The file is missing, damaged, or of an unknown kind.
    """
    try:
        with Image.open(path) as opened:
            # Lets JPEG skip detail that the resize would throw away; a reserve of two keeps it smooth.
            opened.draft(None, (2 * size, 2 * size))
            image = _converted(opened, "RGB" if channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace or remove the file.") from error
    width, height = image.size
    if min(width, height) != size:
        scale = size / min(width, height)
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1).contiguous()


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range is not known")
    if image.mode.startswith("I"):
        # PIL would cut 16 bits off at 255 in place of scaling them.
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    return image.convert(mode)


class FolderImages:
    """The images of files below a folder, for the workers of a DataLoader.

    Args:
        root: The folder.
        paths: Paths below it.
        size: Height and width that images are brought to.
        channels: Channels that they are brought to.
    """

    def __init__(self, root: str | Path, paths: Sequence[str], size: int, channels: Literal[1, 3] = 3) -> None:
        self.root, self.paths, self.size, self.channels = str(root), paths, size, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(os.path.join(self.root, self.paths[index]), self.size, self.channels)

    def stamp(self, index: int) -> bytes:
        """A hash of the size of a file and its beginning; see `Stamped`.

        Args:
            index: Which.

        Returns:
            16 bytes.

        Raises:
            DataError: The file cannot be read.
        """
        path = os.path.join(self.root, self.paths[index])
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return hashlib.blake2b(str(size).encode() + b"/" + file.read(_STAMPED), digest_size=16).digest()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); replace or remove the file.") from error


class ImageFolder(VisionData):
    """Images in one folder per class, as ImageNet lies. Keys are paths below the folder of the part.

    Args:
        train: Folder of the training part, with one folder per class.
        test: Folder of the test part, with the same ones.
        image_size: Height and width; the shorter side is resized to it and the centre cropped.
        classes: Folders that count, in the order of the labels; or a text file with one per line, and behind
            a tabulator how people call the class. None: all folders of the training part, sorted. With a
            list, labels stay as they are when all files of a class are deleted.
        attributes: A `.csv` table of the training samples (owner, subclass ...) with a column `key` or
            `file`.
        train_size: Training samples that are kept; None: all.
        name: Name in reports; None: that of the folder around the training part.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for
            all channels. It has to be that of the checkpoint's training. None: ImageNet's, as pretrained
            networks expect it; of grey images the mean of its three.
        std: Per-channel deviation that is then divided by; see `mean`.
        channels: 3 brings all images to RGB, 1 to grey.

    Raises:
        DataError: A folder or table is missing, or cannot be used.
    """

    def __init__(
        self,
        train: str | Path,
        test: str | Path,
        image_size: int,
        classes: str | Path | list[str] | None = None,
        attributes: str | Path | None = None,
        train_size: int | None = None,
        name: str | None = None,
        mean: Statistics = None,
        std: Statistics = None,
        channels: Literal[1, 3] = 3,
    ) -> None:
        if isinstance(image_size, bool) or image_size < 1:
            raise DataError(f"image_size is {image_size}; needed: at least 1 pixel.")
        if channels not in (1, 3):
            raise DataError(f"channels is {channels}; needed: 1 (grey) or 3 (RGB).")
        statistics = normalisation(mean, std, *(_IMAGENET if channels == 3 else _GREY))
        parts = [Path(train).expanduser(), Path(test).expanduser()]
        present = [_folders(part) for part in parts]
        if parts[0].resolve() == parts[1].resolve():
            log.warning(SAME_PARTS, train)
        listed = [(f, f) for f in present[0]] if classes is None else class_list(classes)
        folders = [folder for folder, _ in listed]
        _check_folders(folders, parts, present, classes is not None)
        both = [_samples(part, folders, image_size, channels) for part in parts]
        taught = [folders[label] for label in sorted({*both[0].targets.tolist()})]
        _warn_of_untested([name for name in taught if name not in present[1]], parts, {*present[0], *present[1]})
        if attributes is not None and len(both[0]):
            table = read_attributes(attributes, both[0].keys)
            both[0] = replace(both[0], attributes=table.columns, named_attributes=table.named)
        # ImageNet's names list synonyms; the first one does where it is the only such name. A folder's name is whole.
        short = [folder if called == folder else called.split(",")[0].strip() for folder, called in listed]
        names = [n if n and short.count(n) == 1 else folder for n, folder in zip(short, folders, strict=True)]
        title = name or parts[0].resolve().parent.name or "images"
        training = subset(both[0], train_size) if len(both[0]) else both[0]
        super().__init__(title, training, both[1], names, *statistics)
        self.place = str(parts[0].resolve())


def _folders(part: Path) -> list[str]:
    try:
        found = sorted(e.name for e in os.scandir(part) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{part} cannot be listed ({error.strerror}); needed: a folder per class.") from error
    if not found:
        raise DataError(f"{part} holds no folders; needed: one per class, with its images inside.")
    return found


def _check_folders(folders: list[str], parts: list[Path], present: list[list[str]], listed: bool) -> None:
    if listed:
        for folder in folders:
            if not any(folder in names for names in present):
                raise DataError(
                    f"There is no folder {folder!r} of the class list in {parts[0]} nor in {parts[1]}."
                    f"{nearest(folder, present[0])} Where all images of a class were deleted, keep an empty folder of its name."
                )
    elif strange := [name for name in present[1] if name not in folders]:
        near = nearest(strange[0], [name for name in folders if name not in present[1]])
        raise DataError(
            f"{parts[1]} has a folder {strange[0]!r} that {parts[0]} lacks.{near} Where a class has no training image left, "
            "keep an empty folder of its name there, or list all classes, so that labels stay as they were: "
            f"--data.dataset.classes {json.dumps(sorted({*folders, *strange}), ensure_ascii=False)}"
        )


def _warn_of_untested(names: list[str], parts: list[Path], known: set[str]) -> None:
    """Name classes that have training images and no folder in the test part: a slip in a folder's name makes one."""
    for name in names[:_NAMED]:
        near = nearest(name, known - {name})
        log.warning("%s has a class %r that %s lacks: it is taught and never tested.%s", parts[0], name, parts[1], near)
    if len(names) > _NAMED:
        log.warning("%s lacks %d classes of %s in all.", parts[1], len(names), parts[0])


def _samples(part: Path, folders: Sequence[str], size: int, channels: Literal[1, 3]) -> Samples:
    keys: list[str] = []
    targets: list[int] = []
    for label, folder in enumerate(folders):
        for base, below, files in os.walk(part / folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for file in sorted(files):
                if file.lower().endswith(_ENDINGS) and not file.startswith("."):
                    keys.append(Path(base, file).relative_to(part).as_posix())
                    targets.append(label)
    for key in keys:
        if not key.isprintable() and any(0xD800 <= ord(c) <= 0xDFFF for c in key):
            raise DataError(f"The name of the file {key!a} in {part} is not UTF-8; rename it.")
    labels = torch.tensor(targets, dtype=torch.int64)
    return Samples(FolderImages(part, keys, size, channels), labels, keys, folders=folders)
