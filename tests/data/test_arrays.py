import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from lightning_unlearn.data.arrays import Arrays, load_npz
from lightning_unlearn.data.from_datasets import FromDatasets
from lightning_unlearn.data.vision import VisionData, content_keys
from lightning_unlearn.exceptions import DataError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def parts(tmp_path):
    np.savez(tmp_path / "train.npz", images=pixels(30, 8, 8, 3), labels=np.arange(30) % 3)
    np.savez_compressed(tmp_path / "test.npz", images=pixels(9, 8, 8, 3, seed=1), labels=np.arange(9) % 3)
    return tmp_path / "train.npz", tmp_path / "test.npz"


def test_arrays(parts):
    data = Arrays(*parts)
    assert data.train.images.shape == (30, 3, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert data.classes == ["0", "1", "2"]
    assert data.train.keys == content_keys(data.train.images)
    assert data.name == parts[0].parent.name
    dense = data.train.images.double() / 255
    assert data.mean == pytest.approx(dense.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(dense.std((0, 2, 3), correction=0).tolist())


def test_arrays_with_names_table_and_size(parts, tmp_path):
    (tmp_path / "owners.csv").write_text("owner\n" + "\n".join(f"p{i % 4}" for i in range(30)))
    data = Arrays(*parts, classes=["a", "b", "c", "d"], attributes=tmp_path / "owners.csv", train_size=10, name="mine")
    assert (data.num_classes, len(data.train), data.name) == (4, 10, "mine")
    whole = Arrays(*parts)
    owners = {key: f"p{i % 4}" for i, key in enumerate(whole.train.keys)}
    assert data.train.attributes["owner"] == [owners[k] for k in data.train.keys]


def test_own_keys(tmp_path):
    np.savez(tmp_path / "t.npz", images=pixels(3, 4, 4), labels=np.arange(3), keys=np.array(["x", "y", "z"]))
    assert load_npz(tmp_path / "t.npz").keys == ["x", "y", "z"]
    np.savez(tmp_path / "t.npz", images=pixels(3, 4, 4), labels=np.arange(3), keys=np.array([7, 8, 9]))
    assert load_npz(tmp_path / "t.npz").keys == ["7", "8", "9"]
    np.savez(tmp_path / "t.npz", images=pixels(3, 4, 4), labels=np.arange(3), keys=np.array(["x", "y", "x"]))
    with pytest.raises(DataError, match="names samples twice"):
        load_npz(tmp_path / "t.npz")


@pytest.mark.parametrize("keys", [np.array([b"img1", b"img2"]), np.array([["a"], ["b"]]), np.array(2), np.array([0.5, 1.5])])
def test_keys_are_texts(tmp_path, keys):
    np.savez(tmp_path / "t.npz", images=pixels(2, 4, 4), labels=np.arange(2), keys=keys)
    with pytest.raises(DataError, match=r"needed: one text for each sample.*numpy\.char\.decode"):
        load_npz(tmp_path / "t.npz")


def test_arrays_refuse_what_does_not_fit(parts, tmp_path):
    np.savez(tmp_path / "grey.npz", images=pixels(4, 8, 8), labels=np.arange(4) % 3)
    with pytest.raises(DataError, match=r"\(3, 8, 8\) and test images \(1, 8, 8\)"):
        Arrays(parts[0], tmp_path / "grey.npz")
    np.savez(tmp_path / "gap.npz", images=pixels(4, 8, 8, 3), labels=np.array([1, 2, 3, 9]))
    with pytest.raises(DataError, match="No sample has the label 4, but labels reach 9"):
        Arrays(parts[0], tmp_path / "gap.npz")
    # At once, and without a list of all labels up to it.
    np.savez(tmp_path / "stray.npz", images=pixels(4, 8, 8, 3), labels=np.array([0, 1, 2, 2**62]))
    with pytest.raises(DataError, match=f"No sample has the label 3, but labels reach {2**62}"):
        Arrays(parts[0], tmp_path / "stray.npz")
    with pytest.raises(DataError, match=r"run from 0 to 2; needed: 0 to 1"):
        Arrays(*parts, classes=["a", "b"])
    np.savez(tmp_path / "none.npz", images=pixels(0, 8, 8, 3), labels=np.zeros(0, int))
    with pytest.raises(DataError, match="holds no sample"):
        Arrays(tmp_path / "none.npz", parts[1])


def test_damaged_files(parts, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_npz(tmp_path / "absent.npz")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_npz(tmp_path)
    whole = parts[0].read_bytes()
    for name, content in {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"hello",
        "flipped": whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:],
    }.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            load_npz(tmp_path / f"{name}.npz")
    # How it is packed, and the header of the array in it: parts that no checksum guards.
    plain = io.BytesIO()
    np.savez(plain, images=pixels(900, 16, 16), labels=np.arange(900))
    packed = bytearray(plain.getvalue())
    central = packed.index(b"PK\x01\x02")
    for name, at, value in (("way", central + 10, 77), ("secret", central + 8, 1), ("header", packed.index(b"}"), ord(" "))):
        (tmp_path / f"{name}.npz").write_bytes(packed[:at] + bytes([value]) + packed[at + 1 :])
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            load_npz(tmp_path / f"{name}.npz")
    np.save(tmp_path / "one.npy", pixels(3, 4, 4))
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_npz(tmp_path / "one.npy")
    np.savez(tmp_path / "object.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(DataError, match="pickle"):
        load_npz(tmp_path / "object.npz")
    np.savez(tmp_path / "names.npz", x=pixels(3, 4, 4), y=np.arange(3))
    with pytest.raises(DataError, match="holds x, y; missing: images, labels"):
        load_npz(tmp_path / "names.npz")


class Pictures(Dataset):
    """PIL images with labels, as torchvision's data sets give them."""

    def __init__(self, n=12, mode="RGB", size=6):
        self.items = [(Image.fromarray(pixels(size, size, 3, seed=i)).convert(mode), i % 3) for i in range(n)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 3), ("CMYK", 3)])
def test_pil_datasets_are_held_in_memory(mode, channels):
    data = FromDatasets("mine", Pictures(mode=mode), Pictures(4, mode))
    assert data.train.images.shape == (12, channels, 6, 6)
    assert data.train.keys == content_keys(data.train.images)
    assert data.classes == ["0", "1", "2"]
    if mode == "RGB":
        assert torch.equal(data.train.images[5], torch.from_numpy(pixels(6, 6, 3, seed=5)).permute(2, 0, 1))


def test_tensor_datasets_of_floats_and_bytes_agree():
    images = torch.from_numpy(pixels(9, 3, 5, 5))
    labels = torch.arange(9) % 3
    raw = FromDatasets("a", TensorDataset(images, labels), TensorDataset(images, labels), num_classes=4)
    scaled = FromDatasets("a", TensorDataset(images / 255, labels), TensorDataset(images, labels), train_size=5)
    assert raw.num_classes == 4
    assert len(scaled.train) == 5
    assert set(scaled.train.keys) <= set(raw.train.keys)


def folder_dataset(root, classes=("cat", "dog")):
    datasets = pytest.importorskip("torchvision.datasets")
    transforms = pytest.importorskip("torchvision.transforms")
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(3):
            Image.fromarray(pixels(9, 12, 3, seed=i)).save(root / name / f"{i}.png")
    return datasets.ImageFolder(root, transforms.Compose([transforms.Resize((6, 6)), transforms.ToTensor()]))


def test_datasets_with_paths_are_read_lazily_and_keyed_by_path(tmp_path):
    source = folder_dataset(tmp_path)
    data = FromDatasets("mine", source, source)
    assert data.train.keys == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    assert not isinstance(data.train.images, torch.Tensor)
    assert data.classes == ["cat", "dog"]
    assert torch.equal(data.train.images[4], (source[4][0] * 255).round().to(torch.uint8))
    source.transform = source.transform.transforms[1]
    Image.fromarray(pixels(5, 5, 3)).save(tmp_path / "dog" / "1.png")
    with pytest.raises(DataError, match=r"Image 4 of mine \(training\) is \(3, 5, 5\) and image 0 \(3, 9, 12\)"):
        FromDatasets("mine", source, source)


def test_test_labels_are_those_of_the_training_by_name(tmp_path):
    train = folder_dataset(tmp_path / "train", ("ant", "bee", "cat"))
    test = folder_dataset(tmp_path / "test", ("bee", "cat"))
    data = FromDatasets("mine", train, test)
    assert [data.classes[label] for label in data.test.targets] == ["bee"] * 3 + ["cat"] * 3
    # Brought there by the user already.
    test.target_transform = lambda label: label + 1
    assert FromDatasets("mine", train, test).test.targets.tolist() == [1, 1, 1, 2, 2, 2]
    other = folder_dataset(tmp_path / "other", ("bee", "cats"))
    with pytest.raises(DataError, match=r"a class 'cats', and the training part has 0 of that name.*Did you mean 'cat'"):
        FromDatasets("mine", train, other)
    test.target_transform, test.classes = None, ["bee"]
    with pytest.raises(DataError, match=r"has the label 1 and names 1 classes; needed: a name for each label"):
        FromDatasets("mine", train, test)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "holds no sample"),
        ([torch.zeros(3, 4, 4)], "is a Tensor; needed: a pair"),
        ([(np.zeros((4, 4)), 0)], "image is a ndarray; needed: a PIL image or a tensor"),
        ([(torch.zeros(4, 4), 0)], r"\(4, 4\); needed: \(C, H, W\)"),
        ([(torch.zeros(2, 4, 4), 0)], "1 or 3 channels"),
        ([(torch.full((1, 4, 4), -1.0), 0)], "values from -1 to -1.*Leave the normalisation"),
        ([(torch.full((1, 4, 4), float("nan")), 0)], "values from nan"),
        ([(torch.zeros(1, 4, 4, dtype=torch.int64), 0)], "torch.int64 with values"),
        ([(torch.zeros(1, 4, 4), 0.0)], r"label is 0\.0"),
        ([(torch.zeros(1, 4, 4), True)], "label is True"),
        ([(torch.zeros(1, 4, 4), torch.eye(3)[0])], "not one-hot"),
        ([(torch.zeros(1, 4, 4), -100)], "1 labels .*negative, -100"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 5, 5), 0)], r"Image 1 .*\(1, 5, 5\) and image 0"),
    ],
)
def test_what_other_datasets_give_is_checked(items, message):
    with pytest.raises(DataError, match=message):
        FromDatasets("mine", items, items)


def test_random_transforms_and_iterables_are_refused():
    class Jitter(Pictures):
        def __getitem__(self, index):
            return torch.rand(3, 4, 4), 0

    with pytest.raises(DataError, match="another image each time"):
        FromDatasets("mine", Jitter(), Pictures())
    with pytest.raises(DataError, match="has no length"):
        FromDatasets("mine", iter([]), Pictures())


def test_the_command_line_builds_any_dataset():
    jsonargparse = pytest.importorskip("jsonargparse")
    pytest.importorskip("torchvision")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=VisionData)
    part = {"class_path": "torchvision.datasets.FakeData", "init_args": {"size": 20, "image_size": [3, 8, 8]}}
    settings = {"name": "fake", "train": part, "test": part, "num_classes": 10}
    path = "lightning_unlearn.data.from_datasets.FromDatasets"
    config = parser.parse_object({"data": {"class_path": path, "init_args": settings}})
    assert parser.instantiate(config).data.train.images.shape == (20, 3, 8, 8)


def test_the_normalisation_can_be_that_of_a_checkpoint(tmp_path, caplog):
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    for name, part in (("train", images), ("test", images[::-1])):
        np.savez(tmp_path / f"{name}.npz", images=part, labels=np.arange(12) % 3)
    given = Arrays(tmp_path / "train.npz", tmp_path / "test.npz", mean=0.5, std=[0.5, 0.5, 0.25])
    assert (given.mean, given.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.25))
    measured = Arrays(tmp_path / "train.npz", tmp_path / "test.npz")
    assert measured.mean == pytest.approx(tuple((images / 255).mean((0, 1, 2))))
    assert not caplog.records
    Arrays(tmp_path / "train.npz", tmp_path / "train.npz")
    assert "is the training part and the test part" in caplog.text


def test_labels_are_those_that_a_data_set_gives(tmp_path):
    folders = pytest.importorskip("torchvision.datasets").ImageFolder
    for name in ("a/0.png", "a/1.png", "b/0.png", "c/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(8, 8, 3)).save(tmp_path / name)
    folder = folders(str(tmp_path), target_transform=lambda label: 2 - label)
    assert FromDatasets("mine", folder, folder).train.targets.tolist() == [2, 2, 1, 0] == [label for _, label in folder]

    class Otherwise(folders):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, (label + (index == 3)) % 3

    other = Otherwise(str(tmp_path))
    with pytest.raises(DataError, match=r"gives sample 3 the label 0, and its list `samples` says 2.*target_transform"):
        FromDatasets("mine", other, folder)
