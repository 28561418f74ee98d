import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_unlearn.data.datasets import CIFAR10, CIFAR10N, CIFAR100, MNIST, SVHN, Digits, FashionMNIST
from lightning_unlearn.data.folders import ImageFolder
from lightning_unlearn.data.reading import channel_statistics
from lightning_unlearn.data.split import copies_left
from lightning_unlearn.data.vision import content_keys
from lightning_unlearn.exceptions import DataError


def real(name):
    folder = os.environ.get("LIGHTNING_UNLEARN_DATA")
    if not folder:
        pytest.skip("LIGHTNING_UNLEARN_DATA names no folder with real data")
    if not (Path(folder) / name).is_dir():
        pytest.skip(f"{name} is not in the folder that LIGHTNING_UNLEARN_DATA names")
    return Path(folder)


def test_digits():
    data = Digits()
    assert (len(data.train), len(data.test), data.num_classes) == (1400, 397, 10)
    assert data.train.images.shape == (1400, 1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert int(data.train.images.max()) == 255
    levels = data.train.images.unique().double() * 16 / 255
    assert (levels - levels.round()).abs().max() < 0.04
    assert set(data.train.keys).isdisjoint(data.test.keys)
    assert data.classes[3] == "3"


def test_digits_split_by_content_evenly():
    data, small = Digits(), Digits(train_size=200)
    assert Digits(test_size=100).test.keys != data.test.keys
    assert set(Digits(test_size=100).test.keys) < set(data.test.keys)
    assert set(small.train.keys) < set(data.train.keys)
    assert len(small.train) == 200
    shares = torch.bincount(data.test.targets, minlength=10).double() / 397
    assert (shares - 0.1).abs().max() < 0.05
    with pytest.raises(DataError, match="test_size is 1797"):
        Digits(test_size=1797)


def test_importing_reads_neither_torchvision_nor_scikit_learn():
    code = (
        "import sys; from lightning_unlearn.data import datasets, folders, arrays; "
        "print([m for m in ('torchvision', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (MNIST, r"MNIST/raw"),
        (FashionMNIST, r"FashionMNIST/raw"),
        (CIFAR10, r"cifar-10-batches-py \(or cifar10/train.npz and cifar10/test.npz\)"),
        (CIFAR100, r"cifar-100-python"),
        (SVHN, r"train,test}_32x32.mat"),
    ],
)
def test_missing_files_say_where_they_must_lie(tmp_path, data, where):
    with pytest.raises(DataError, match=rf"files must lie in .*{where}.*`download: true` fetches them"):
        data(tmp_path)


def test_damaged_files_are_a_clear_error(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(DataError, match="mnist cannot be read"):
        MNIST(tmp_path)


@pytest.mark.parametrize("below", ["cifar10", ""])
def test_cifar10_from_npz(tmp_path, below):
    (tmp_path / below).mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "test"):
        np.savez(tmp_path / below / f"{part}.npz", images=images, labels=np.arange(20) % 10, other=np.zeros(20))
    data = CIFAR10(tmp_path, train_size=7)
    assert (len(data.train), len(data.test), data.classes[0]) == (7, 20, "airplane")
    assert data.test.keys == content_keys(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert (data.mean[0], data.std[0]) == (0.4914, 0.2470)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(("data", "name"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_idx_files_are_read(tmp_path, data, name):
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = {p: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for p, n in (("train", 30), ("t10k", 10))}
    for part, pixels in images.items():
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(len(pixels)) % 10).astype(np.uint8))
    got = data(tmp_path)
    assert np.array_equal(got.train.images[:, 0].numpy(), images["train"])
    assert got.train.targets.tolist() == [i % 10 for i in range(30)]
    assert got.test.images.shape == (10, 1, 28, 28)


def test_cifar100_names():
    assert len(set(CIFAR100.class_names)) == 100
    assert CIFAR100.class_names[0] == "apple"
    assert CIFAR100.class_names[52] == "oak_tree"
    assert CIFAR100.class_names[99] == "worm"


@pytest.mark.parametrize(
    ("data", "folder", "count", "shape"),
    [
        (CIFAR10, "cifar10", (50_000, 10_000), (3, 32, 32)),
        (MNIST, "MNIST", (60_000, 10_000), (1, 28, 28)),
        (FashionMNIST, "FashionMNIST", (60_000, 10_000), (1, 28, 28)),
    ],
)
def test_real_sets(data, folder, count, shape):
    root = real(folder)
    start = time.perf_counter()
    got = data(root)
    assert time.perf_counter() - start < 30
    assert (len(got.train), len(got.test)) == count
    assert got.train.images.shape[1:] == shape
    assert len(set(got.train.keys)) == count[0]
    mean, std = channel_statistics(got.train.images)
    assert got.mean == pytest.approx(mean, abs=2e-4)
    assert got.std == pytest.approx(std, abs=2e-4)
    if data is CIFAR10:
        assert torch.bincount(got.train.targets).tolist() == [5000] * 10
    first, rest = torch.arange(1000), torch.arange(1000, 20_000)
    pairs = copies_left(got.train, first, rest)
    assert all(a.split("#")[0] == b.split("#")[0] for a, b in pairs)


def test_real_folders():
    root = real("tiny-imagenet-100") / "tiny-imagenet-100"
    data = ImageFolder(root / "train", root / "val", 64, classes=root / "classes.txt")
    assert data.num_classes == 100
    assert data.classes[0] == "goldfish"
    assert data.train.keys[0] == "n01443537/n01443537_000.JPEG"
    assert set(data.train.targets.tolist()) == set(range(100))
    for i in range(0, len(data.train), 997):
        image = data.train.images[i]
        assert image.shape == (3, 64, 64)
        assert image.dtype == torch.uint8
    part = ImageFolder(root / "train", root / "val", 32, classes=root / "classes.txt", train_size=500)
    assert len(part.train) == 500
    assert set(part.train.keys) < set(data.train.keys)


def test_a_known_set_takes_another_normalisation():
    assert Digits(mean=0.5, std=0.5).mean == (0.5,)
    with pytest.raises(DataError, match="images have 1 channels"):
        Digits(mean=[0.5, 0.5, 0.5])


def write_human_labels(folder):
    """60 random images in the layout of CIFAR-10, a third of them labelled wrongly by people."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / f"{part}.npz", images=images, labels=np.arange(count) % 10)
    clean = np.arange(60) % 10
    given = np.where(np.arange(60) % 3 == 0, (clean + 1) % 10, clean)
    np.savez(folder / "human_labels.npz", clean_label=clean.astype(np.uint8), aggre_label=given.astype(np.uint8))
    return clean, given


def test_human_labels_are_given_and_the_true_ones_kept(tmp_path):
    clean, given = write_human_labels(tmp_path / "cifar10")
    data = CIFAR10N(tmp_path)
    assert data.name == "cifar10n"
    assert data.train.targets.tolist() == given.tolist()
    assert data.train.true_targets.tolist() == clean.tolist()
    assert data.test.true_targets is None
    assert data.test.targets.tolist() == CIFAR10(tmp_path).test.targets.tolist()
    # Of a part each sample keeps its own two labels.
    small, whole = CIFAR10N(tmp_path, train_size=25).train, {key: i for i, key in enumerate(data.train.keys)}
    places = [whole[key] for key in small.keys]
    assert len(set(places)) == 25
    assert small.targets.tolist() == given[places].tolist()
    assert small.true_targets.tolist() == clean[places].tolist()


def test_bad_human_labels(tmp_path):
    clean, given = write_human_labels(tmp_path / "cifar10")
    with pytest.raises(DataError, match="missing: worse_label"):
        CIFAR10N(tmp_path, "worse_label")
    with pytest.raises(DataError, match="no such file; needed: integer labels of the 50,000"):
        CIFAR10N(tmp_path, human_labels=tmp_path / "gone.npz")
    np.savez(tmp_path / "other.npz", clean_label=np.roll(clean, 1), aggre_label=given)
    with pytest.raises(DataError, match="does not belong to these 60 training images"):
        CIFAR10N(tmp_path, human_labels=tmp_path / "other.npz")


def test_real_human_labels():
    folder = real("cifar10")
    if not (folder / "cifar10/human_labels.npz").is_file():
        pytest.skip("human_labels.npz is not in the folder that LIGHTNING_UNLEARN_DATA names")
    train = CIFAR10N(folder, "worse_label").train
    assert float((train.targets != train.true_targets).double().mean()) == pytest.approx(0.40208)
