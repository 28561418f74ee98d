import itertools

import pytest
import torch

from lightning_unlearn.data.hashing import mix
from lightning_unlearn.data.views import VIEWS, Plan, cut
from lightning_unlearn.exceptions import DataError


def plan(view, forget=23, retain=101, batch_size=16, forget_batch_size=5, **kwargs):
    index = torch.randperm(forget + retain, generator=torch.Generator().manual_seed(0))
    hashes = mix(torch.arange(forget + retain))
    parts = (index[:forget].sort().values, index[forget:].sort().values)
    return Plan(view, *parts, hashes, batch_size, forget_batch_size, seed=3, **kwargs)


@pytest.mark.parametrize(("n", "size", "world"), list(itertools.product([4, 5, 16, 17, 31, 127], [3, 16, 200], [1, 2, 4])))
def test_batches_differ_by_one_sample_at_most(n, size, world):
    batches = cut(torch.arange(n), size, world)
    sizes = [len(b) for b in batches]
    assert torch.equal(torch.cat(batches), torch.arange(n))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= world
    if size >= 2 * world:
        assert max(sizes) <= size
        assert len(sizes) == -(-n // size)


def test_fewer_samples_than_ranks_are_refused():
    with pytest.raises(DataError, match="3 samples for 4 ranks"):
        cut(torch.arange(3), 16, 4)


@pytest.mark.parametrize("view", VIEWS)
def test_length_is_the_number_of_steps(view):
    for forget, retain in ((23, 101), (101, 23)):  # more may be forgotten than retained
        assert len(list(plan(view, forget, retain).steps(0))) == len(plan(view, forget, retain))


@pytest.mark.parametrize(("view", "part"), [("train", None), ("retain", "retain"), ("forget", "forget")])
def test_every_sample_once_per_epoch_in_another_order(view, part):
    p = plan(view)
    wanted = torch.cat([p.forget, p.retain]).sort().values if part is None else getattr(p, part)
    epochs = [torch.cat([piece.index for step in p.steps(e) for piece in step.values()]) for e in range(2)]
    for served in epochs:
        assert torch.equal(served.sort().values, wanted)
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], wanted)


def test_forget_then_retain_serves_all_of_each():
    p = plan("forget_then_retain")
    steps = list(p.steps(0))
    names = [next(iter(step)) for step in steps]
    assert names == ["forget"] * 5 + ["retain"] * 7
    for part in ("forget", "retain"):
        served = torch.cat([step[part].index for step in steps if part in step])
        assert torch.equal(served.sort().values, getattr(p, part))


@pytest.mark.parametrize(("forget", "retain", "pairs"), [(23, 101, 5), (101, 23, 2)])
def test_pairs_end_with_the_shorter_part_and_retain_follows(forget, retain, pairs):
    p = plan("pairs_then_retain", forget, retain)
    steps = list(p.steps(0))
    assert [sorted(step) for step in steps] == [["forget", "retain"]] * pairs + [["retain"]] * (len(p) - pairs)
    assert p.forget_steps == pairs
    beside, after = (torch.cat([step["retain"].index for step in part]) for part in (steps[:pairs], steps[pairs:]))
    assert torch.equal(after.sort().values, p.retain)
    assert len(beside.unique()) == len(beside)
    assert not torch.equal(beside, after[: len(beside)])


def test_both_serves_forgotten_samples_without_a_break():
    """Over epochs, every run of F forgotten samples that begins at a pass is a permutation of the forget set."""
    p = plan("both")
    steps = [step for epoch in range(4) for step in p.steps(epoch)]
    stream = torch.cat([step["forget"].index for step in steps])
    assert all(len(step["forget"].index) == 5 for step in steps)
    passes = stream.split(len(p.forget))[: len(stream) // len(p.forget)]
    assert len(passes) == 28 * 5 // 23
    for served in passes:
        assert torch.equal(served.sort().values, p.forget)
    retained = torch.cat([step["retain"].index for step in p.steps(2)])
    assert torch.equal(retained.sort().values, p.retain)


def test_both_takes_the_whole_forget_set_where_it_is_smaller_than_a_batch():
    for step in plan("both", forget=3, forget_batch_size=64).steps(1):
        assert len(step["forget"].index.unique()) == 3


def test_both_equal_serves_the_same_retained_samples_in_every_epoch():
    p = plan("both_equal")
    for epoch in range(2):
        served = torch.cat([step["retain"].index for step in p.steps(epoch)])
        assert torch.equal(served.sort().values, p.equal_part())
    assert len(p.equal_part()) == len(p.forget)


@pytest.mark.parametrize("view", VIEWS)
def test_two_ranks_together_are_one(view):
    alone = plan(view)
    parts = [plan(view, rank=rank, world=2) for rank in range(2)]
    for epoch in range(2):
        steps = [list(p.steps(epoch)) for p in (alone, *parts)]
        assert len(steps[0]) == len(steps[1]) == len(steps[2])
        for whole, *pieces in zip(*steps, strict=True):
            assert list(whole) == list(pieces[0]) == list(pieces[1])
            for name, piece in whole.items():
                assert torch.equal(torch.cat([p[name].index for p in pieces]), piece.index)
                assert all(p[name].total == len(piece.index) and p[name].epoch == piece.epoch for p in pieces)
                assert abs(len(pieces[0][name].index) - len(pieces[1][name].index)) <= 1


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("start", [0, 1, 4])
def test_start_leaves_out_exactly_the_first_steps(view, start):
    for epoch in (0, 3):
        whole, rest = list(plan(view).steps(epoch))[start:], list(plan(view).steps(epoch, start))
        assert len(whole) == len(rest)
        for a, b in zip(whole, rest, strict=True):
            assert all(torch.equal(a[k].index, b[k].index) and a[k].epoch == b[k].epoch for k in a)


def test_stages_of_one_chain_have_their_own_order():
    orders = [torch.cat([s["retain"].index for s in plan("retain", salt=salt).steps(0)]) for salt in ("0/A", "1/A")]
    assert not torch.equal(*orders)


def test_the_order_of_the_others_outlives_a_deletion():
    p = plan("retain")
    less = Plan("retain", p.forget, p.retain[1:], p.hashes, 16, 5, seed=3)
    before = torch.cat([s["retain"].index for s in p.steps(0)])
    after = torch.cat([s["retain"].index for s in less.steps(0)])
    assert torch.equal(before[before != p.retain[0]], after)


def test_a_forget_batch_smaller_than_the_ranks_is_refused():
    with pytest.raises(DataError, match="1 forgotten samples a batch for 2 ranks"):
        next(iter(plan("both", forget_batch_size=1, world=2).steps(0)))
