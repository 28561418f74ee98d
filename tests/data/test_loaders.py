from dataclasses import replace

import pytest
import torch

from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.loaders import BatchMaker, EvaluationLoader, ViewLoader
from lightning_unlearn.data.vision import Samples, VisionData


class OneByOne:
    """Images that are read one at a time."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def lazily(data):
    parts = [replace(part, images=OneByOne(part.images)) for part in (data.train, data.test)]
    return VisionData(data.name, *parts, data.classes, data.mean, data.std)


def epoch(data, view, number=0):
    data.serve(view, salt="s")
    loader = data.train_dataloader()
    batches = list(ViewLoader(loader.plan, loader.maker, lambda: (number, 0)))
    return [b for batch in batches for b in (batch.values() if isinstance(batch, dict) else [batch])]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
        assert a.total == b.total


@pytest.mark.parametrize("view", ["train", "both", "forget_then_retain"])
def test_workers_and_memory_give_the_same_batches(view, digits, make_data):
    augmentation = Augmentation(shift=1)
    expected = epoch(make_data(augmentation=augmentation, seed=4), view, 2)
    for dataset, arguments in (
        (digits, {"resident": False}),
        (lazily(digits), {"resident": False}),
        (lazily(digits), {"resident": True}),
    ):
        assert_same(expected, epoch(make_data(dataset, augmentation=augmentation, seed=4, **arguments), view, 2))
    with_worker = make_data(lazily(digits), augmentation=augmentation, seed=4, resident=False)
    with_worker.num_workers = 1
    assert_same(expected, epoch(with_worker, view, 2))


def test_images_are_normalised_and_augmented_for_training_only(digits, make_data):
    plain, augmented = make_data(seed=0), make_data(seed=0, augmentation=Augmentation(shift=1))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (digits.mean, digits.std))
    batch = epoch(plain, "train")[0]
    expected = (digits.train.images[batch.index].float() / 255 - mean) / std
    torch.testing.assert_close(batch.input, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(batch.target, digits.train.targets[batch.index])
    assert not torch.equal(epoch(augmented, "train")[0].input, batch.input)
    evaluated = [next(iter(d.evaluation_loader("retain"))) for d in (plain, augmented)]
    assert torch.equal(evaluated[0].input, evaluated[1].input)


def test_position_skips_exactly(make_data):
    data = make_data(augmentation=Augmentation(shift=1), seed=1)
    loader = data.train_dataloader()
    whole = list(ViewLoader(loader.plan, loader.maker, lambda: (3, 0)))
    assert_same(whole[5:], list(ViewLoader(loader.plan, loader.maker, lambda: (3, 5))))


def test_batches_without_images_have_the_same_samples(make_data):
    data = make_data(seed=1)
    loader = data.train_dataloader()
    with_images = list(loader)
    data.skip_images()
    without = list(loader)
    assert [b.index.tolist() for b in without] == [b.index.tolist() for b in with_images]
    assert all(b.input.shape == (len(b.index), 0) for b in without)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_evaluation_sees_every_sample_once_over_all_ranks(n, world, digits):
    maker = BatchMaker(digits.train, digits.mean, digits.std, None, 0, torch.device("cpu"))
    index = torch.arange(5, 5 + n)
    loaders = [EvaluationLoader(index, maker, 3, rank, world) for rank in range(world)]
    seen = [batch.index for loader in loaders for batch in loader]
    assert sum(len(loader) for loader in loaders) == len(seen)
    assert torch.equal(torch.cat(seen), index)


def test_samples_of_two_sets_do_not_mix(digits, make_data):
    data = make_data()
    test = next(iter(data.evaluation_loader("test")))
    assert torch.equal(test.target, digits.test.targets)
    assert isinstance(data.dataset.test, Samples)
