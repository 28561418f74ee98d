import numpy as np
import pytest
import torch

from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.reading import (
    Picked,
    as_images,
    as_labels,
    channel_statistics,
    pick,
    resident_samples,
    subset,
)
from lightning_unlearn.exceptions import DataError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_all_layouts_give_channels_first():
    grey, last = pixels(5, 6, 7), pixels(5, 6, 7, 3)
    assert as_images(grey, "x").shape == (5, 1, 6, 7)
    assert np.array_equal(as_images(last, "x").numpy(), last.transpose(0, 3, 1, 2))
    assert torch.equal(as_images(last.transpose(0, 3, 1, 2), "x"), as_images(last, "x"))
    assert torch.equal(as_images(torch.from_numpy(grey), "x"), as_images(grey, "x"))
    assert as_images(last, "x").is_contiguous()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 4, 4), np.float32) + 0.5, r"float32; needed: uint8.*images \* 255"),
        (np.full((2, 4, 4), -1.0), "look normalised"),
        (np.full((2, 4, 4), np.nan), "NaN"),
        (np.full((2, 4, 4), 300), "int64; needed: uint8"),
        (np.zeros((2, 4, 4), bool), "bool; needed: uint8"),
        (pixels(4, 4), r"\(4, 4\); needed: \(N, H, W\)"),
        (pixels(2, 4, 4, 4), "needed: 1 or 3 channels"),
        (pixels(2, 3, 3, 3), "channels first, or last"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(DataError, match=f"images of here .*{message}"):
        as_images(images, "here")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_labels_become_int64(dtype):
    labels = as_labels(np.array([0, 2, 1], dtype), "x")
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), r"float64.*astype\('int64'\)"),
        (np.eye(3, dtype=int), r"one-hot.*argmax\(1\)"),
        (np.array([[1], [2]]), r"\(2, 1\); needed: one integer per image"),
        (np.array(3), "needed: one integer per image"),
        (np.array([0, -100, 2, -100]), "2 labels of here are negative, -100 at position 1 the first"),
        (np.array([0, 2**63 + 5], dtype=np.uint64), "labels of here reach 9223372036854775813; needed"),
        (np.array([True, False]), "bool"),
        (np.array(["cat"]), "<U3"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        as_labels(labels, "here")


def test_labels_and_images_must_match():
    with pytest.raises(DataError, match=r"5 images with labels of shape \(4,\)"):
        resident_samples(pixels(5, 4, 4), np.zeros(4, int), "x")


def test_statistics_equal_the_dense_ones():
    images = torch.from_numpy(pixels(20, 3, 5, 5))
    mean, std = channel_statistics(images)
    dense = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), dense.mean((0, 2, 3)))
    expected = dense.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), expected)
    assert channel_statistics(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)) == ([1.0], [1.0])


def test_a_subset_is_chosen_by_key_and_keeps_the_order():
    samples = resident_samples(pixels(100, 4, 4), np.arange(100) % 10, "x")
    part = subset(samples, 30)
    chosen = order(samples.hashes, 0, "subset")[:30].sort().values
    assert part.keys == [samples.keys[i] for i in chosen.tolist()]
    assert torch.equal(part.images, samples.images[chosen])
    assert torch.equal(part.targets, samples.targets[chosen])
    assert subset(samples, None) is samples
    rest = pick(samples, torch.tensor([i for i in range(100) if i % 4]))
    assert set(part.keys) & set(rest.keys) <= set(subset(rest, 30).keys)
    for size in (0, 101, True):
        with pytest.raises(DataError, match=r"train_size is .*needed: 1 to 100"):
            subset(samples, size)


def test_picking_takes_everything_along_also_from_lazy_images():
    samples = resident_samples(pixels(6, 4, 4), np.arange(6), "x")
    whole = type(samples)(
        Picked(samples.images, range(6)),
        samples.targets,
        samples.keys,
        {"a": list("uvwxyz")},
        samples.targets.flip(0),
    )
    part = pick(whole, torch.tensor([4, 1]))
    assert torch.equal(part.images[0], samples.images[4])
    assert (len(part), part.targets.tolist(), part.true_targets.tolist()) == (2, [4, 1], [1, 4])
    assert part.attributes == {"a": ["y", "v"]}
