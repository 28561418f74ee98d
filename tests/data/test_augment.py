import pytest
import torch

from lightning_unlearn.data.augment import Augmentation, shift_and_flip
from lightning_unlearn.data.hashing import mix

IMAGES = torch.randint(0, 256, (64, 3, 6, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def one_by_one(images, dy, dx, mirrored):
    """Mirror, then move every pixel on its own."""
    result = torch.zeros_like(images)
    _, _, height, width = images.shape
    for i, image in enumerate(images):
        source = image.flip(2) if mirrored[i] else image
        for y in range(height):
            for x in range(width):
                a, b = y - int(dy[i]), x - int(dx[i])
                if 0 <= a < height and 0 <= b < width:
                    result[i, :, y, x] = source[:, a, b]
    return result


def test_shift_and_flip_against_a_loop():
    source = torch.Generator().manual_seed(1)
    dy, dx = (torch.randint(-4, 5, (64,), generator=source) for _ in range(2))
    mirrored = torch.rand(64, generator=source) < 0.5
    out = shift_and_flip(IMAGES, dy, dx, mirrored)
    assert out.dtype == IMAGES.dtype
    assert torch.equal(out, one_by_one(IMAGES, dy, dx, mirrored))


def test_a_batch_without_samples_stays_empty():
    assert Augmentation(shift=2)(IMAGES[:0], mix(torch.arange(0)), 0, 0).shape == (0, 3, 6, 9)


def test_a_limit_that_no_shift_reaches_changes_nothing():
    source = torch.Generator().manual_seed(2)
    dy, dx = (torch.randint(-2, 3, (64,), generator=source) for _ in range(2))
    mirrored = torch.rand(64, generator=source) < 0.5
    assert torch.equal(shift_and_flip(IMAGES, dy, dx, mirrored, limit=5), shift_and_flip(IMAGES, dy, dx, mirrored))


def test_no_shift_and_no_flip_change_nothing():
    none = torch.zeros(64, dtype=torch.int64)
    assert torch.equal(shift_and_flip(IMAGES, none, none, none.bool()), IMAGES)


def test_draws_belong_to_the_sample_not_to_its_place_in_the_batch():
    augment, hashes = Augmentation(shift=2), mix(torch.arange(64))
    together = augment(IMAGES, hashes, seed=5, epoch=1)
    shuffled = torch.randperm(64)
    assert torch.equal(augment(IMAGES[shuffled], hashes[shuffled], 5, 1), together[shuffled])
    apart = torch.cat([augment(IMAGES[i : i + 1], hashes[i : i + 1], 5, 1) for i in range(64)])
    assert torch.equal(apart, together)


def test_epochs_and_seeds_differ():
    augment, hashes = Augmentation(shift=2), mix(torch.arange(64))
    first = augment(IMAGES, hashes, 5, 1)
    assert not torch.equal(augment(IMAGES, hashes, 5, 2), first)
    assert not torch.equal(augment(IMAGES, hashes, 6, 1), first)


def test_all_shifts_are_drawn_equally_often():
    n = 9000
    marked = torch.zeros(n, 1, 7, 7, dtype=torch.uint8)
    marked[:, :, 3, 3] = 1
    out = Augmentation(shift=2, flip=False)(marked, mix(torch.arange(n)), 0, 0)
    counts = out.sum(0)[0, 1:6, 1:6].double()
    assert counts.sum() == n
    # 25 places, n / 25 = 360 each, standard deviation 18.6
    assert (counts - n / 25).abs().max() < 5 * 18.6


def test_half_of_the_images_are_mirrored():
    marked = torch.zeros(4000, 1, 1, 2, dtype=torch.uint8)
    marked[..., 0] = 1
    hashes = mix(torch.arange(4000))
    mirrored = int(Augmentation(shift=0)(marked, hashes, 0, 0)[..., 1].sum())
    assert abs(mirrored - 2000) < 5 * 31.6
    assert torch.equal(Augmentation(shift=0, flip=False)(marked, hashes, 0, 0), marked)


def test_a_negative_shift_is_refused():
    with pytest.raises(ValueError, match="shift is -1"):
        Augmentation(shift=-1)
