import math

import pytest
import torch

from lightning_unlearn.data.hashing import mix, order, purpose, uniform
from lightning_unlearn.data.vision import hash_of_key


def splitmix64(state):
    """The published algorithm on Python's unbounded integers: one step from `state`."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def hashes(n, prefix="sample"):
    return torch.tensor([hash_of_key(f"{prefix}-{i}") for i in range(n)])


def test_mix_is_splitmix64_also_where_the_sign_bit_is_set():
    values = [0, 1, -1, 2**63 - 1, -(2**63), 123456789, -987654321]
    expected = [splitmix64(v & (2**64 - 1)) for v in values]
    assert [int(v) & (2**64 - 1) for v in mix(torch.tensor(values))] == expected
    # The value that the reference implementation prints first when it is seeded with 0.
    assert int(mix(0)) & (2**64 - 1) == 0xE220A8397B1DCDAF


def test_mix_chains_in_order_and_broadcasts():
    x = torch.tensor([3, -4])
    nested = [splitmix64(splitmix64(7) ^ (v & (2**64 - 1))) for v in x.tolist()]
    assert [int(v) & (2**64 - 1) for v in mix(7, x)] == nested
    assert not torch.equal(mix(7, x), mix(x, 7))
    assert mix(x[:, None], torch.arange(3)).shape == (2, 3)
    assert torch.equal(mix(2**64 - 1, x), mix(-1, x))


def test_mix_refuses_other_dtypes_and_nothing():
    with pytest.raises(TypeError, match="int64"):
        mix(torch.zeros(2))
    with pytest.raises(ValueError, match="at least one"):
        mix()


def test_uniform_is_uniform_even_on_consecutive_integers():
    n = 200_000
    for key in (torch.arange(n), hashes(20_000)):
        u = uniform(key, seed=0, purpose="test")
        assert u.dtype == torch.float64
        assert u.min() >= 0
        assert u.max() < 1
        counts = torch.histc(u, bins=100, min=0, max=1)
        expected = len(key) / 100
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        # Mean 99, standard deviation 14: six of them.
        assert chi2 < 99 + 6 * math.sqrt(2 * 99)
        ks = (u.sort().values - (torch.arange(len(key)) + 0.5) / len(key)).abs().max()
        assert ks < 2 / math.sqrt(len(key))


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"purpose": "b"}, {"epoch": 1}, {"seed": -1}],
    ids=["seed", "purpose", "epoch", "negative"],
)
def test_other_streams_are_independent(other):
    key = torch.arange(50_000)
    base = {"seed": 0, "purpose": "a", "epoch": 0}
    u, v = uniform(key, **base), uniform(key, **(base | other))
    joint = torch.histogramdd(torch.stack([u, v], 1), bins=[10, 10], range=[0.0, 1.0, 0.0, 1.0]).hist
    chi2 = float(((joint - 500) ** 2 / 500).sum())
    assert chi2 < 99 + 6 * math.sqrt(2 * 99)


def test_seed_and_epoch_are_not_interchangeable():
    key = hashes(100)
    assert not torch.equal(uniform(key, 1, "a", 2), uniform(key, 2, "a", 1))


def test_draws_do_not_depend_on_the_other_samples():
    key = hashes(1000)
    keep = torch.arange(1000) % 7 != 3
    assert torch.equal(uniform(key, 5, "noise", 2)[keep], uniform(key[keep], 5, "noise", 2))
    assert torch.equal(uniform(key.view(10, 100), 5, "noise").flatten(), uniform(key, 5, "noise"))


def test_relative_order_survives_deletion_and_reordering():
    key = hashes(1000)
    full = key[order(key, 3, "order")]
    gone = set(key[::5].tolist())
    survivors = torch.tensor([k for k in key.tolist() if k not in gone])
    expected = [k for k in full.tolist() if k not in gone]
    assert survivors[order(survivors, 3, "order")].tolist() == expected
    backwards = key.flip(0)
    assert torch.equal(backwards[order(backwards, 3, "order")], full)


def test_order_is_a_uniform_permutation():
    key = hashes(3)
    counts = {}
    for epoch in range(6000):
        permutation = tuple(order(key, 0, "order", epoch).tolist())
        counts[permutation] = counts.get(permutation, 0) + 1
    assert len(counts) == 6
    # 1000 each, standard deviation 29.
    assert all(abs(c - 1000) < 150 for c in counts.values())


def test_equal_hashes_keep_their_given_order():
    assert order(torch.full((5,), 9), 0, "order").tolist() == [0, 1, 2, 3, 4]


def test_purpose_is_stable_between_processes():
    assert purpose("augment") == purpose("augment") == hash_of_key("augment")
    assert purpose("augment") != purpose("order")
    assert -(2**63) <= purpose("noise") < 2**63


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_draws_the_same():
    key = hashes(1000)
    assert torch.equal(uniform(key.cuda(), 1, "a", 2).cpu(), uniform(key, 1, "a", 2))
    assert torch.equal(order(key.cuda(), 1, "a", 2).cpu(), order(key, 1, "a", 2))
