import pytest
import torch

from lightning_unlearn.attacks.draw import attack_sets, balanced_draw
from lightning_unlearn.exceptions import DataError


def counts(targets, drawn):
    return targets[drawn].bincount(minlength=int(targets.max()) + 1).tolist()


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([50, 50, 50], 30, [10, 10, 10]),
        ([50, 4, 50], 30, [13, 4, 13]),
        ([3, 0, 50], 30, [3, 0, 27]),
        ([5, 5], 10, [5, 5]),
        ([5, 5], 0, [0, 0]),
    ],
)
def test_classes_share_equally_as_far_as_they_can(sizes, count, expected):
    targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    drawn = balanced_draw(targets, count, seed=0)
    assert counts(targets, drawn) == expected
    assert len(drawn.unique()) == count
    assert drawn.tolist() == sorted(drawn.tolist())


def test_left_over_places_go_to_any_class():
    targets = torch.arange(4).repeat_interleave(20)
    extra = torch.zeros(4)
    for seed in range(200):
        share = counts(targets, balanced_draw(targets, 21, seed=seed))
        assert sorted(share) == [5, 5, 5, 6]
        extra[share.index(6)] += 1
    assert extra.min() > 25


def test_every_sample_is_drawn_alike():
    targets = torch.arange(2).repeat_interleave(10)
    seen = torch.zeros(20)
    for seed in range(1000):
        seen[balanced_draw(targets, 10, seed=seed)] += 1
    # 500 each, standard deviation 15.8.
    assert (seen - 500).abs().max() < 70


def test_a_sample_keeps_its_place_when_another_is_deleted():
    targets = torch.arange(5).repeat(100)
    index = torch.arange(500)
    before = index[balanced_draw(targets, 100, seed=3, index=index)]
    kept = index != before[7]
    after = index[kept][balanced_draw(targets[kept], 100, seed=3, index=index[kept])]
    assert len(set(before.tolist()) & set(after.tolist())) >= 98


def test_too_large_a_draw_is_refused():
    with pytest.raises(DataError, match="draw of 4 from 3"):
        balanced_draw(torch.zeros(3, dtype=torch.int64), 4, seed=0)


@pytest.mark.parametrize(("n_retain", "n_test"), [(100, 30), (30, 100), (40, 40)])
def test_both_sets_have_the_size_of_the_smaller(n_retain, n_test):
    sets = attack_sets(torch.arange(n_retain) % 10, n_test, seed=1)
    assert len(sets.members) == len(sets.non_members) == min(n_retain, n_test)
    assert sets.members.max() < n_retain
    assert sets.non_members.max() < n_test
