import pytest
import torch

from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.some_classes import SomeClasses
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import DataError


def test_two_digits_with_labels_of_their_own(digits):
    data = SomeClasses(digits, ["7", 1], per_class=20)
    assert data.classes == ["7", "1"]
    assert data.name == "digits 7/1"
    assert data.train.targets.bincount().tolist() == [20, 20]
    true = dict(zip(digits.train.keys, digits.train.targets.tolist(), strict=True))
    assert [true[key] for key in data.train.keys] == [[7, 1][label] for label in data.train.targets.tolist()]
    assert len(data.test) == int(torch.isin(digits.test.targets, torch.tensor([1, 7])).sum())
    assert (data.mean, data.std) == (digits.mean, digits.std)
    # Always the same ones, and all of them where no number is given.
    assert SomeClasses(digits, [1, 7], 20).train.keys == data.train.keys
    assert set(data.train.keys) < set(SomeClasses(digits, [1, 7]).train.keys)


def test_truth_is_kept_where_it_is_among_the_classes(digits):
    noisy = LabelNoise(0.5).apply(digits.train, 10)
    data = VisionData("noisy", noisy, digits.test, digits.classes, digits.mean, digits.std)
    assert SomeClasses(data, [0, 1]).train.true_targets is None
    swapped = VisionData("x", LabelNoise(0.5, swap=(0, 1)).apply(digits.train, 10), digits.test, digits.classes, [0.3], [0.3])
    truth = SomeClasses(swapped, [1, 0]).train
    assert truth.true_targets.unique().tolist() == [0, 1]
    assert 0.3 < float((truth.true_targets != truth.targets).float().mean()) < 0.7


@pytest.mark.parametrize(
    ("classes", "per_class", "message"),
    [
        ([3], None, "classes is \\[3\\]; needed: at least two"),
        ([3, 12], None, "Class 12 is out of range"),
        ([3, 4], 500, "per_class is 500, and there are"),
        ([3, 4], 0, "per_class is 0"),
    ],
)
def test_bad_arguments(digits, classes, per_class, message):
    with pytest.raises(DataError, match=message):
        SomeClasses(digits, classes, per_class)
