from dataclasses import replace

import pytest
import torch

from lightning_unlearn.data.trigger import Trigger, TriggeredSamples
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

N, K = 1000, 5
PATCH = Trigger(0.1, target=2, size=2, place="top-right", value=200, seed=3)


def make(keep=None, lazy=False):
    keep = torch.arange(N) if keep is None else keep
    images = (keep % 7).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5).contiguous()
    return Samples(list(images) if lazy else images, keep % K, [f"k{i}" for i in keep.tolist()])


@pytest.mark.parametrize("lazy", [False, True])
def test_the_patch_and_the_label_are_put_on_the_share_of_other_classes(lazy):
    clean = make(lazy=lazy)
    poisoned = PATCH.apply(clean, K)
    chosen = poisoned.triggered
    assert 50 < int(chosen.sum()) < 110
    assert bool((clean.targets[chosen] != 2).all())
    assert bool((poisoned.targets[chosen] == 2).all())
    assert torch.equal(poisoned.targets[~chosen], clean.targets[~chosen])
    assert torch.equal(poisoned.true_targets, clean.targets)
    for i in range(N):
        expected = clean.images[i].clone()
        if chosen[i]:
            expected[:, :2, 3:] = 200
        assert torch.equal(poisoned.images[i], expected)
    assert int(max(image.max() for image in clean.images)) == 6


def test_who_is_poisoned_follows_the_keys():
    whole = PATCH.apply(make(), K).triggered
    turned = torch.arange(N).flip(0)
    assert torch.equal(PATCH.apply(make(turned), K).triggered.flip(0), whole)
    other = Trigger(0.1, target=2, size=2, seed=4).apply(make(), K).triggered
    assert not torch.equal(other, whole)


def test_what_is_left_when_the_poisoned_are_deleted_is_clean():
    clean = (~PATCH.apply(make(), K).triggered).nonzero().flatten()
    assert not bool(PATCH.apply(make(clean), K).triggered.any())
    exact = replace(PATCH, draw="exact")
    whole = exact.apply(make(), K).triggered
    assert int(whole.sum()) == 80
    left = exact.apply(make((~whole).nonzero().flatten()), K).triggered
    assert int(left.sum()) == 72


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ("top-left", slice(0, 2), slice(0, 2)),
        ("bottom-left", slice(2, 4), slice(0, 2)),
        ("bottom-right", slice(2, 4), slice(3, 5)),
        ("centre", slice(1, 3), slice(1, 3)),
    ],
)
def test_places(place, rows, columns):
    image = torch.zeros(1, 4, 5, dtype=torch.uint8)
    expected = image.clone()
    expected[:, rows, columns] = 9
    assert torch.equal(Trigger(0.1, size=2, place=place, value=9).patch(image), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, "fraction is 0.0; needed: above 0"),
        ({"fraction": 1.5}, "fraction is 1.5; needed: above 0"),
        ({"fraction": True}, "fraction is True"),
        ({"fraction": 0.1, "target": -1}, "target is -1"),
        ({"fraction": 0.1, "size": 0}, "size 0"),
        ({"fraction": 0.1, "value": 256}, "value 256"),
        ({"fraction": 0.1, "place": "middle"}, "place is 'middle'; needed: one of top-left"),
        ({"fraction": 0.1, "draw": "coin"}, "draw is 'coin'; needed"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(DataError, match=message):
        Trigger(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.1, "target": 5}, "target is 5 and there are 5 classes"),
        ({"fraction": 0.1, "size": 5}, "5 pixels wide and images are 4x5"),
        ({"fraction": 0.1, "size": 4}, "4 pixels wide and images are 4x5"),
        ({"fraction": 1e-6}, "of 800 samples of other classes: none"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_does_not_fit_the_samples_is_refused(arguments, message, lazy):
    with pytest.raises(DataError, match=message):
        Trigger(**arguments).apply(make(lazy=lazy), K)


def test_the_unseen_and_the_test_part_stay_clean(make_data, digits):
    data = make_data(forget=TriggeredSamples(), unseen=100, trigger=Trigger(0.3, size=2, place="top-left"))
    samples, forget = data.part("forget")
    assert bool((samples.images[forget, :, :2, :2] == 255).all())
    assert bool((samples.targets[forget] == 0).all())
    assert not bool(samples.triggered[data.part("retain")[1]].any())
    unseen, index = data.part("unseen")
    # Some of them would have been poisoned, had they been trained on.
    assert bool(samples.triggered[index].any())
    assert torch.equal(unseen.images[index], digits.train.images[index])
    assert torch.equal(unseen.targets[index], digits.train.targets[index])
    assert torch.equal(data.part("test")[0].images, digits.test.images)
    batch = next(iter(data.evaluation_loader("unseen")))
    plain = next(iter(make_data(unseen=100).evaluation_loader("unseen")))
    assert torch.equal(batch.input, plain.input)


def test_test_samples_with_the_trigger_keep_their_labels(make_data, digits):
    data = make_data(trigger=Trigger(0.1, target=4, size=2, place="top-left"))
    samples, index = data.part("triggered")
    assert torch.equal(index, (digits.test.targets != 4).nonzero().flatten())
    assert torch.equal(samples.targets, digits.test.targets)
    assert bool((samples.images[:, :, :2, :2] == 255).all())
    with pytest.raises(DataError, match="The data have no trigger"):
        make_data().part("triggered")


def test_two_triggers_are_two_sets_of_samples(make_data):
    prints = {make_data(forget=TriggeredSamples(), trigger=Trigger(0.1, size=size)).fingerprint("train") for size in (1, 2)} | {
        make_data().fingerprint("train")
    }
    assert len(prints) == 3
    kept = {make_data(forget=TriggeredSamples(), trigger=Trigger(0.1, size=size)).fingerprint("retain") for size in (1, 2)}
    assert len(kept) == 1


def test_the_rule_needs_poisoned_samples(make_data):
    assert TriggeredSamples().describe() == "all samples with the trigger"
    with pytest.raises(DataError, match="No sample has a trigger"):
        make_data(forget=TriggeredSamples()).part("forget")
    samples = PATCH.apply(make(), K)
    clean = (~samples.triggered).nonzero().flatten()
    with pytest.raises(DataError, match="No sample that the model was trained on has the trigger"):
        TriggeredSamples().select(samples, clean, 0, [])
