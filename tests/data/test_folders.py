import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.folders import ImageFolder, read_image
from lightning_unlearn.data.split import SavedSplit, positions
from lightning_unlearn.data.trigger import Trigger
from lightning_unlearn.data.vision import stamp
from lightning_unlearn.exceptions import DataError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    for part, n in (("train", 4), ("val", 2)):
        for c, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(pixels(10, 8, 3, seed=10 * c + i)).save(folder / f"{name}_{i}.png")
    return tmp_path


def folder(root, **kwargs):
    return ImageFolder(root / "train", root / "val", 8, **kwargs)


def test_layout(root):
    (root / "train" / "ant" / ".hidden.png").write_bytes(b"")
    (root / "train" / "ant" / "notes.txt").write_text("")
    (root / "train" / "bee" / "deep").mkdir()
    Image.fromarray(pixels(8, 8, 3)).save(root / "train" / "bee" / "deep" / "x.PNG")
    data = folder(root)
    assert data.classes == ["ant", "bee", "cat"]
    assert data.name == root.name
    assert data.train.keys[:2] == ["ant/ant_0.png", "ant/ant_1.png"]
    assert "bee/deep/x.PNG" in data.train.keys
    assert data.train.targets.tolist() == [0] * 4 + [1] * 5 + [2] * 4
    expected = torch.from_numpy(pixels(10, 8, 3, seed=20)).permute(2, 0, 1)[:, 1:9]
    assert torch.equal(data.train.images[9], expected)


def test_workers_read_the_same(root):
    images = folder(root).train.images
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again[3], images[3])
    loader = DataLoader(images, batch_size=None, num_workers=1)
    assert all(torch.equal(a, images[i]) for i, a in enumerate(loader))


def test_deletion_keeps_keys_on_their_samples(root):
    before = folder(root)
    split = SavedSplit(before.train.keys[::3], before.train.keys[1::3], before.train.keys[2::3], [])
    split.save(root / "split.json")
    gone = ["ant/ant_0.png", "bee/bee_2.png"]
    for key in gone:
        (root / "train" / key).unlink()
    after = folder(root)
    assert len(after.train) == len(before.train) - 2
    saved = SavedSplit.load(root / "split.json")
    for part in (saved.forget, saved.retain, saved.unseen):
        found = positions(part, after.train)
        assert [after.train.keys[i] for i in found.tolist()] == sorted(set(part) - set(gone))
    for key in set(before.train.keys) - set(gone):
        i, j = before.train.keys.index(key), after.train.keys.index(key)
        assert torch.equal(after.train.images[j], read_image(root / "train" / key, 8))
        assert before.train.targets[i] == after.train.targets[j]
        assert before.train.hashes[i] == after.train.hashes[j]


def test_labels_stay_when_a_whole_class_is_deleted(root):
    before = folder(root)
    for path in (root / "train" / "bee").iterdir():
        path.unlink()
    assert folder(root).train.targets.unique().tolist() == [0, 2]
    (root / "train" / "bee").rmdir()
    advice = r"keep an empty folder .*: --data.dataset.classes \[\"ant\", \"bee\", \"cat\"\]"
    with pytest.raises(DataError, match=f"folder 'bee' that .*train lacks. Where .*{advice}"):
        folder(root)
    assert folder(root, classes=before.classes).train.targets.unique().tolist() == [0, 2]
    for path in (root / "val" / "bee").iterdir():
        path.unlink()
    (root / "val" / "bee").rmdir()
    with pytest.raises(DataError, match=r"no folder 'bee' of the class list in .*keep an empty folder"):
        folder(root, classes=before.classes)
    (root / "train" / "bee").mkdir()
    assert folder(root).train.targets.unique().tolist() == [0, 2]


def test_a_class_that_no_test_folder_has_is_named(root, caplog):
    folder(root)
    assert not caplog.records
    for name in ("Bee", "Cat", "cta", "zebra"):
        (root / "train" / name).mkdir()
        Image.fromarray(pixels(8, 8, 3)).save(root / "train" / name / "0.png")
    # Without images it teaches nothing.
    (root / "train" / "ants").mkdir()
    folder(root)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == (
        f"{root / 'train'} has a class 'Bee' that {root / 'val'} lacks: it is taught and never tested. Did you mean 'bee'?"
    )
    assert [line.endswith("Did you mean 'cat'?") for line in said] == [False, True, True, False]
    assert said[3] == f"{root / 'val'} lacks 4 classes of {root / 'train'} in all."


def test_a_misspelt_test_folder_is_told_from_a_class_of_its_own(root):
    (root / "val" / "bee").rename(root / "val" / "bees")
    with pytest.raises(DataError, match=r"'bees' that .*train lacks\. Did you mean 'bee'\? Where a class has no"):
        folder(root)
    # What has a test folder is not meant.
    (root / "val" / "bee").mkdir()
    with pytest.raises(DataError, match=r"'bees' that .*train lacks\. Where a class has no"):
        folder(root)


def test_a_class_list_chooses_orders_and_names(root):
    (root / "classes.txt").write_text("cat\ttabby, tabby cat\nant\temmet, pismire\n")
    data = folder(root, classes=root / "classes.txt")
    assert data.classes == ["tabby", "emmet"]
    assert [data.train.keys[0], data.train.keys[-1]] == ["cat/cat_0.png", "ant/ant_3.png"]
    (root / "classes.txt").write_text("cat\tcrane\nant\tcrane\n")
    assert folder(root, classes=root / "classes.txt").classes == ["cat", "ant"]


def test_attributes_follow_their_keys_into_a_subset(root):
    keys = folder(root).train.keys
    rows = [f"{key.split('/')[1]},owner of {key}" for key in reversed(keys)]
    (root / "owners.csv").write_text("file,owner\n" + "\n".join(rows))
    data = folder(root, attributes=root / "owners.csv", train_size=5)
    assert data.train.attributes["owner"] == [f"owner of {key}" for key in data.train.keys]
    assert len(data.train) == len(data.train.images) == 5
    assert torch.equal(data.train.images[2], read_image(root / "train" / data.train.keys[2], 8))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (17, 16), (16, 300), (16, 16)])
def test_resize_and_crop(tmp_path, size):
    # A horizontal and a vertical ramp: after the crop they are symmetric about the middle, to half a pixel.
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    Image.fromarray(np.stack([x, y, x], 2).astype(np.uint8)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 16).double()
    assert image.shape == (3, 16, 16)
    for channel, axis in ((0, 0), (1, 1)):
        ramp = image[channel].mean(axis)
        assert (ramp + ramp.flip(0) - 255).abs().max() <= ramp.diff().max() + 2


def test_other_kinds_of_pixels(tmp_path):
    grey = pixels(8, 8)
    colour = pixels(8, 8, 3)
    wide = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).save(tmp_path / "wide.tif")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "wide32.tif")
    for name in ("grey.png", "wide.png", "wide.tif", "wide32.tif"):
        image = read_image(tmp_path / name, 8)
        assert torch.equal(image, torch.from_numpy(grey).expand(3, 8, 8)), name
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "alpha.png")
    assert torch.equal(read_image(tmp_path / "alpha.png", 8), torch.from_numpy(colour).permute(2, 0, 1))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    red = read_image(tmp_path / "cmyk.jpg", 8)
    assert red[0].min() > 200
    assert red[1:].max() < 55
    Image.new("P", (8, 8), 3).save(tmp_path / "palette.gif")
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png", 8).min() == 255
    assert read_image(tmp_path / "palette.gif", 8).shape == (3, 8, 8)


def test_large_jpegs_lose_nothing_by_the_draft(tmp_path):
    coarse = Image.fromarray(pixels(8, 8, 3)).resize((400, 300), Image.Resampling.BICUBIC)
    coarse.save(tmp_path / "a.jpg", quality=98)
    coarse.save(tmp_path / "a.png")
    difference = read_image(tmp_path / "a.jpg", 32).double() - read_image(tmp_path / "a.png", 32).double()
    assert difference.abs().mean() < 3


def test_unreadable_images_are_named(root):
    path = root / "train" / "ant" / "ant_1.png"
    whole = path.read_bytes()
    Image.new("F", (8, 8)).save(root / "float.tif")
    for content in (b"", b"not an image", whole[: len(whole) // 2], (root / "float.tif").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"ant_1\.png cannot be read as an image"):
            folder(root).train.images[1]
    path.unlink()
    with pytest.raises(DataError, match=r"ant_1\.png cannot be read"):
        read_image(path, 8)


def test_an_unreadable_image_in_a_worker_is_named(root):
    (root / "train" / "ant" / "ant_0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"ant_0\.png cannot be read as an image"):
        next(iter(DataLoader(folder(root).train.images, batch_size=None, num_workers=1)))


def test_bad_folders(root, tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        ImageFolder(root / "trian", root / "val", 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        ImageFolder(tmp_path / "empty", root / "val", 8)
    with pytest.raises(DataError, match=r"no folder 'be' of the class list.*Did you mean 'bee'"):
        folder(root, classes=["ant", "be"])
    with pytest.raises(DataError, match="image_size is 0"):
        ImageFolder(root / "train", root / "val", 0)
    (root / "one" / "x").mkdir(parents=True)
    with pytest.raises(DataError, match=r"training part of .* holds no sample"):
        ImageFolder(root / "one", root / "one", 8)


def test_the_input_is_normalised_as_asked(root):
    assert folder(root).mean == (0.485, 0.456, 0.406)
    assert "RGB 8x8, minus mean 0.485, 0.456, 0.406, divided by 0.229, 0.224, 0.225" in folder(root).input
    plain = folder(root, mean=0, std=1)
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    assert folder(root, mean=[0.1, 0.2, 0.3]).mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.5, 0.5]}, "images have 3 channels"),
        ({"std": 0}, "above 0"),
        ({"mean": float("nan")}, "finite"),
        ({"channels": 2}, r"1 \(grey\) or 3"),
    ],
)
def test_normalisations_that_cannot_be(root, given, message):
    with pytest.raises(DataError, match=message):
        folder(root, **given)


def test_grey_images_stay_grey(root):
    colour, grey = folder(root), folder(root, channels=1)
    assert grey.train.images[0].shape == (1, 8, 8)
    assert (grey.mean, grey.std) == ((0.449,), (0.226,))
    assert grey.input.startswith("grey 8x8, minus mean 0.449")
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    expected = (colour.train.images[0] * weights).sum(0)
    # Converted before the crop, rounded to whole levels.
    assert (grey.train.images[0][0] - expected).abs().max() <= 1


def test_one_folder_as_both_parts_is_warned_of(root, caplog):
    folder(root)
    assert not caplog.records
    ImageFolder(root / "train", root / "val" / ".." / "train", 8)
    assert "is the training part and the test part" in caplog.text


def test_a_folder_name_with_a_comma_stays_whole(root):
    for part in ("train", "val"):
        (root / part / "cat").rename(root / part / "class,3")
    assert folder(root).classes == ["ant", "bee", "class,3"]


def test_a_file_that_is_replaced_has_another_stamp(root):
    data = folder(root, train_size=11)
    planted = Trigger(1.0, size=2).apply(data.train, 3)
    before = [[stamp(images, i) for i in range(11)] for images in (data.train.images, planted.images)]
    place = data.train.keys.index("bee/bee_1.png")
    Image.fromarray(pixels(10, 8, 3, seed=99)).save(root / "train" / "bee" / "bee_1.png")
    after = [[stamp(images, i) for i in range(11)] for images in (data.train.images, planted.images)]
    for old, new in zip(before, after, strict=True):
        assert [i for i in range(11) if old[i] != new[i]] == [place]
    assert [i for i in range(11) if before[0][i] != before[1][i]] == planted.triggered.nonzero().flatten().tolist()
    (root / "train" / "bee" / "bee_1.png").unlink()
    with pytest.raises(DataError, match="replace or remove the file"):
        stamp(data.train.images, place)


def test_folders_with_other_images_under_the_same_names_have_another_fingerprint(tmp_path):
    """Or the bank would give models of the one to the other."""
    found = []
    for name, value in (("a", 10), ("b", 10), ("c", 200)):
        for part in ("train", "test"):
            for label in ("x", "y"):
                folder = tmp_path / name / "photos" / part / label
                folder.mkdir(parents=True)
                for i in range(3):
                    pixels = np.full((8, 8, 3), value + i, dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        root = tmp_path / name / "photos"
        for resident in (True, False):
            data = UnlearningDataModule(ImageFolder(root / "train", root / "test", 8), resident=resident, num_workers=0)
            data.prepare_data()
            data.setup("fit")
            found.append(data.fingerprint("train"))
    assert len(set(found[:4])) == 1
    assert found[4] == found[5] != found[0]
