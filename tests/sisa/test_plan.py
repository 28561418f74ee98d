"""Shards, slices, what has to be trained again, and what that costs."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from lightning_unlearn.data.vision import hash_of_key
from lightning_unlearn.sisa.plan import SlicePlan, assign, cut_slices, expected_share
from lightning_unlearn.sisa.recipe import SliceRecipe, epochs_of_slices
from tests.sisa.conftest import without


def recipe(shards=3, slices=2, seed=0, **settings):
    return SliceRecipe(shards, slices, seed, 2, 16, settings)


def test_shard_and_slice_follow_key_and_seed_alone():
    hashes = torch.tensor([hash_of_key(str(i)) for i in range(2000)])
    shard, number = assign(hashes, recipe(5, 4))
    some = torch.arange(0, 2000, 7).flip(0)
    assert torch.equal(assign(hashes[some], recipe(5, 4))[0], shard[some])
    assert torch.equal(assign(hashes[some], recipe(5, 4))[1], number[some])
    # Each of the 20 cells holds 100 on average, with a standard deviation below 10.
    cells = torch.bincount(shard * 4 + number, minlength=20)
    assert int(cells.min()) > 60
    assert int(cells.max()) < 140
    assert not torch.equal(assign(hashes, recipe(5, 4, seed=1))[0], shard)


def test_slices_grow_and_their_names_stand_for_recipe_and_samples(small):
    everything = torch.arange(len(small.train))
    slices = cut_slices(recipe(), small.train, everything)
    assert torch.equal(torch.cat([shard[-1].index for shard in slices]).sort().values, everything)
    for shard in slices:
        assert set(shard[0].index.tolist()) <= set(shard[1].index.tolist())
    names = [s.name for shard in slices for s in shard]
    assert len(set(names)) == 6
    gone = int(slices[1][1].index[~torch.isin(slices[1][1].index, slices[1][0].index)][0])
    left = [s.name for shard in cut_slices(recipe(), small.train, everything[everything != gone]) for s in shard]
    assert [a != b for a, b in zip(names, left, strict=True)] == [False, False, False, True, False, False]
    # Positions do not matter: the row is deleted from the data set itself.
    reduced = without(small, {small.train.keys[gone]}).train
    assert left == [s.name for shard in cut_slices(recipe(), reduced, torch.arange(len(reduced))) for s in shard]
    for other in (recipe(seed=1), recipe(anything="else")):
        assert not set(names) & {s.name for shard in cut_slices(other, small.train, everything) for s in shard}


def test_a_sample_that_was_replaced_under_its_key_names_other_slices(small):
    everything = torch.arange(len(small.train))
    slices = cut_slices(recipe(), small.train, everything)
    images = small.train.images.clone()
    images[slices[1][0].index[0]] += 1
    now = cut_slices(recipe(), replace(small.train, images=images), everything)
    differing = [
        a.name != b.name for before, after in zip(slices, now, strict=True) for a, b in zip(before, after, strict=True)
    ]
    assert differing == [False, False, True, True, False, False]


def test_the_plan_counts_its_work(small):
    slices = cut_slices(recipe(), small.train, torch.arange(len(small.train)))
    plan = SlicePlan(slices, [slices[2][1]], 2)
    whole = sum(len(s.index) for shard in slices for s in shard)
    assert plan.images == 2 * len(slices[2][1].index)
    assert plan.share == pytest.approx(len(slices[2][1].index) / whole)
    assert "1 of 3 shards are trained (shard 2 from slice 2 of 2" in plan.text()
    assert f"{100 * plan.share:.1f} %" in plan.text()
    assert "nothing is trained" in SlicePlan(slices, [], 2).text()


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_expected_share_is_the_mean_over_all_requests(size):
    # Two shards of 4 and 2 samples, each in two slices: what every slice's training sees.
    seen = [{0}, {0, 1, 2, 3}, {4}, {4, 5}]
    work = [sum(len(s) for s in seen if s & set(request)) for request in combinations(range(6), size)]
    expected = sum(work) / math.comb(6, size) / sum(len(s) for s in seen)
    assert expected_share([len(s) for s in seen], 6, size) == pytest.approx(expected, abs=1e-12)


def test_slices_cost_what_one_training_costs():
    for slices in (1, 3, 7):
        epochs = epochs_of_slices(40, slices)
        assert sum(epochs * i / slices for i in range(1, slices + 1)) == pytest.approx(40, rel=0.06)
    assert epochs_of_slices(40, 1) == 40
    assert epochs_of_slices(1, 9) == 1
