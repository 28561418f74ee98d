"""Well-known data sets: embedded in scikit-learn, or read by torchvision from files that lie on disk."""

import importlib
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lightning_unlearn.data.arrays import load_npz, read_arrays
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.reading import as_images, as_labels, channel_statistics, pick, resident_samples, subset
from lightning_unlearn.data.vision import Samples, Statistics, VisionData, normalisation
from lightning_unlearn.exceptions import DataError

__all__ = ["CIFAR10", "CIFAR10N", "CIFAR100", "MNIST", "SVHN", "Digits", "FashionMNIST"]

_NUMERALS = tuple("0123456789")
# In the order of the fine labels, which is that of the alphabet; a list would take 100 lines.
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm"
)


class Digits(VisionData):
    """1,797 handwritten digits of 8x8 pixels that come with scikit-learn; for tests and first steps.

    Args:
        test_size: Test samples, drawn by a hash of their content.
        train_size: Training samples that are kept; None: all.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: measured on the training images.
        std: Per-channel deviation that is then divided by; see `mean`.

    Raises:
        DataError: A size is out of range.
    """

    measures = True

    def __init__(
        self,
        test_size: int = 397,
        train_size: int | None = None,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
        # Stored with levels 0 to 16.
        pixels = as_images(np.rint(bunch.images * (255 / 16)).astype(np.uint8), "digits")
        samples = resident_samples(pixels, bunch.target, "digits")
        if isinstance(test_size, bool) or not 1 <= test_size < len(samples):
            raise DataError(f"test_size is {test_size}; needed: 1 to {len(samples) - 1}.")
        shuffled = order(samples.hashes, 0, "digits/test")
        test, train = shuffled[:test_size].sort().values, shuffled[test_size:].sort().values
        statistics = normalisation(mean, std, *channel_statistics(pixels[train]))
        kept = subset(pick(samples, train), train_size)
        super().__init__("digits", kept, pick(samples, test), _NUMERALS, *statistics)


class _Published(VisionData):
    """A set that torchvision reads.

    Attributes:
        short: Name in reports.
        source: Name of torchvision's class.
        files: Files or folder below `root`.
        class_names: Names of the classes.
        channel_mean: Published mean of the training images.
        channel_std: Published standard deviation.
    """

    short: ClassVar[str]
    source: ClassVar[str]
    files: ClassVar[str]
    class_names: ClassVar[Sequence[str]] = _NUMERALS
    channel_mean: ClassVar[Sequence[float]]
    channel_std: ClassVar[Sequence[float]]

    def __init__(
        self,
        root: str | Path,
        train_size: int | None = None,
        download: bool = False,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        train, test = (self._read(Path(root).expanduser(), part, download) for part in ("train", "test"))
        statistics = normalisation(mean, std, self.channel_mean, self.channel_std)
        super().__init__(self.short, subset(train, train_size), test, self.class_names, *statistics)

    def _read(self, root: Path, part: str, download: bool) -> Samples:
        source = self._torchvision(root, part, download)
        labels = source.labels if hasattr(source, "labels") else source.targets
        return resident_samples(source.data, labels, f"{self.short} ({part})")

    def _torchvision(self, root: Path, part: str, download: bool) -> Any:  # ruff: ignore[any-type]  # torchvision is not typed
        try:
            datasets = importlib.import_module("torchvision.datasets")
        except ImportError as error:
            raise DataError(f"Reading {self.short} needs torchvision ({error}): pip install torchvision.") from error
        which = {"split": part} if self.source == "SVHN" else {"train": part == "train"}
        # What torchvision and scipy raise where a file is missing, cut short or something else.
        broken = (
            RuntimeError,
            OSError,
            ValueError,
            EOFError,
            AssertionError,
            KeyError,
            pickle.UnpicklingError,
        )
        try:
            return getattr(datasets, self.source)(root, download=download, **which)
        except ImportError as error:
            raise DataError(f"Reading {self.short} needs another package: {error}.") from error
        except broken as error:
            remedy = "Check the network." if download else "`download: true` fetches them."
            raise DataError(
                f"{self.short} cannot be read ({error}); its files must lie in {root / self.files}. {remedy}"
            ) from error


class MNIST(_Published):
    """60,000 and 10,000 handwritten digits of 28x28 pixels (LeCun et al., 1998).

    Args:
        root: Folder that holds `MNIST/raw` with the four idx files.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing files.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: the published one.
        std: Per-channel deviation that is then divided by; see `mean`.
    """

    short, source, files = "mnist", "MNIST", "MNIST/raw"
    channel_mean, channel_std = (0.1307,), (0.3081,)


class FashionMNIST(_Published):
    """60,000 and 10,000 pictures of clothes of 28x28 pixels (Xiao et al., 2017).

    Args:
        root: Folder that holds `FashionMNIST/raw` with the four idx files.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing files.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: the published one.
        std: Per-channel deviation that is then divided by; see `mean`.
    """

    short, source, files = "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    channel_mean, channel_std = (0.2860,), (0.3530,)


class SVHN(_Published):
    """73,257 and 26,032 house numbers of 32x32 pixels (Netzer et al., 2011).

    Args:
        root: Folder that holds `train_32x32.mat` and `test_32x32.mat`.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing files.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: the published one.
        std: Per-channel deviation that is then divided by; see `mean`.
    """

    short, source, files = "svhn", "SVHN", "{train,test}_32x32.mat"
    channel_mean, channel_std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


class CIFAR10(_Published):
    """50,000 and 10,000 photographs of 10 classes, 32x32 pixels (Krizhevsky, 2009).

    Args:
        root: Folder that holds torchvision's `cifar-10-batches-py`; or `train.npz` and `test.npz` with the
            arrays `images` and `labels`, directly or in `cifar10`.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing files.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: the published one.
        std: Per-channel deviation that is then divided by; see `mean`.
    """

    short, source = "cifar10", "CIFAR10"
    files = "cifar-10-batches-py (or cifar10/train.npz and cifar10/test.npz)"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    channel_mean, channel_std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def _read(self, root: Path, part: str, download: bool) -> Samples:
        for folder in (root / "cifar10", root):
            if all((folder / f"{name}.npz").is_file() for name in ("train", "test")):
                return load_npz(folder / f"{part}.npz")
        return super()._read(root, part, download)


class CIFAR10N(CIFAR10):
    """CIFAR-10 with the labels that people gave its training images (Wei et al. 2022, ICLR); the true ones are kept as truth.

    9 % of `aggre_label` are wrong (the majority of three people), 17 to 18 % of `random_label1`, `random_label2` and
    `random_label3` (one person each), 40 % of `worse_label` (a wrong one of the three where there is one).

    Args:
        root: See `CIFAR10`.
        labels: Which of the arrays in the file of labels counts as given.
        human_labels: A `.npz` file with that array and `clean_label`, (50000,) integers in the order of the training images;
            None: `human_labels.npz` in `cifar10` below `root`, or in it.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing images; the labels are published at http://noisylabels.com.
        mean: See `CIFAR10`.
        std: See `CIFAR10`.

    Raises:
        DataError: The file of labels is missing, or belongs to other images.
    """

    short = "cifar10n"

    def __init__(
        self,
        root: str | Path,
        labels: str = "aggre_label",
        human_labels: str | Path | None = None,
        train_size: int | None = None,
        download: bool = False,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        self._array = labels
        self._file = None if human_labels is None else Path(human_labels).expanduser()
        super().__init__(root, train_size, download, mean, std)

    def _read(self, root: Path, part: str, download: bool) -> Samples:
        samples = super()._read(root, part, download)
        if part == "test":
            return samples
        places = [root / "cifar10" / "human_labels.npz", root / "human_labels.npz"]
        path = self._file or next((place for place in places if place.is_file()), places[0])
        arrays = read_arrays(path, (self._array, "clean_label"), "integer labels of the 50,000 training images of CIFAR-10")
        given, clean = (as_labels(arrays[name], f"{path} ({name})") for name in (self._array, "clean_label"))
        if not (len(given) == len(clean) == len(samples) and torch.equal(clean, samples.targets)):
            raise DataError(
                f"{path} does not belong to these {len(samples)} training images: its clean_label is not their labels. Needed: "
                "the labels of CIFAR-10N, and CIFAR-10 in its published order."
            )
        return replace(samples, targets=given, true_targets=clean)


class CIFAR100(_Published):
    """50,000 and 10,000 photographs of 100 classes, 32x32 pixels (Krizhevsky, 2009).

    Args:
        root: Folder that holds torchvision's `cifar-100-python`.
        train_size: Training samples that are kept; None: all.
        download: Whether torchvision may fetch missing files.
        mean: Per-channel mean of pixels in 0 ... 1 that is taken away before the model; one number counts for all channels.
            It has to be that of the checkpoint's training. None: the published one.
        std: Per-channel deviation that is then divided by; see `mean`.
    """

    short, source, files = "cifar100", "CIFAR100", "cifar-100-python"
    class_names = tuple(_CIFAR100.split())
    channel_mean, channel_std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
