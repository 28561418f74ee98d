import math

import pytest
import torch

from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

N, K = 20_000, 5


def make(keep=None):
    keep = torch.arange(N) if keep is None else keep
    return Samples(torch.zeros(len(keep), 1, 1, 1, dtype=torch.uint8), keep % K, [f"k{i}" for i in keep.tolist()])


def test_exact_changes_the_exact_count_and_keeps_the_truth():
    clean = make()
    noisy = LabelNoise(0.2).apply(clean, K)
    assert int((noisy.targets != clean.targets).sum()) == 4000
    assert torch.equal(noisy.true_targets, clean.targets)
    assert torch.equal(clean.targets, torch.arange(N) % K)
    assert noisy.keys == clean.keys


def test_bernoulli_changes_about_as_many_and_is_blind_to_other_samples():
    rule = LabelNoise(0.2, flip="bernoulli")
    noisy = rule.apply(make(), K)
    changed = int((noisy.targets != noisy.true_targets).sum())
    assert changed != 4000
    assert abs(changed - 4000) < 5 * math.sqrt(N * 0.2 * 0.8)
    keep = torch.arange(0, N, 3)
    assert torch.equal(rule.apply(make(keep), K).targets, noisy.targets[keep])


def test_wrong_labels_are_even_over_the_other_classes():
    noisy = LabelNoise(1.0).apply(make(), K)
    table = torch.zeros(K, K).index_put_((noisy.true_targets, noisy.targets), torch.ones(N), accumulate=True)
    assert torch.equal(table.diagonal(), torch.zeros(K))
    off = table[~torch.eye(K, dtype=torch.bool)]
    # 1000 in each cell; 15 degrees of freedom.
    chi2 = float(((off - 1000) ** 2 / 1000).sum())
    assert chi2 < 15 + 5 * math.sqrt(30)


def test_seed_matters_and_repeats():
    a, b, c = (LabelNoise(0.3, seed=s).apply(make(), K).targets for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_larger_fraction_only_adds_wrong_labels():
    small, large = (LabelNoise(f).apply(make(), K).targets for f in (0.1, 0.3))
    wrong = small != torch.arange(N) % K
    assert torch.equal(small[wrong], large[wrong])


def test_no_noise_and_noise_twice():
    clean = make()
    assert torch.equal(LabelNoise(0.0).apply(clean, K).targets, clean.targets)
    twice = LabelNoise(0.2, seed=1).apply(LabelNoise(0.2).apply(clean, K), K)
    assert torch.equal(twice.true_targets, clean.targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": -0.1}, "fraction is -0.1"),
        ({"fraction": 1.1}, "fraction is 1.1"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"fraction": True}, "fraction is True"),
        ({"fraction": 0.1, "flip": "some"}, "flip is 'some'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        LabelNoise(**arguments)


def test_one_class_has_no_wrong_label():
    with pytest.raises(DataError, match="another class"):
        LabelNoise(0.1).apply(make(torch.arange(0, 10, 5)), 1)


def test_swap_confuses_two_classes_and_no_other():
    noisy = LabelNoise(0.25, swap=(1, 3)).apply(make(), K)
    table = torch.zeros(K, K).index_put_((noisy.true_targets, noisy.targets), torch.ones(N), accumulate=True)
    expected = torch.eye(K) * 4000
    expected[1] = torch.tensor([0, 3000, 0, 1000, 0])
    expected[3] = torch.tensor([0, 1000, 0, 3000, 0])
    assert torch.equal(table, expected)
    assert torch.equal(LabelNoise(0.25, swap=(3, 1)).apply(make(), K).targets, noisy.targets)


def test_swapping_by_coin_is_blind_to_other_samples():
    rule = LabelNoise(0.25, flip="bernoulli", swap=(1, 3))
    noisy = rule.apply(make(), K)
    assert abs(int((noisy.targets != noisy.true_targets).sum()) - 2000) < 5 * math.sqrt(8000 * 0.25 * 0.75)
    keep = torch.arange(0, N, 3)
    assert torch.equal(rule.apply(make(keep), K).targets, noisy.targets[keep])


def test_swapping_everything_exchanges_the_labels():
    targets = LabelNoise(1.0, swap=(0, 4)).apply(make(), K).targets
    exchange = torch.tensor([4, 1, 2, 3, 0])
    assert torch.equal(targets, exchange[torch.arange(N) % K])


@pytest.mark.parametrize("swap", [(1, 1), (-1, 2), (1, 2, 3), (1,)])
def test_bad_swaps(swap):
    with pytest.raises(DataError, match="needed: two different labels"):
        LabelNoise(0.1, swap=swap)


def test_a_class_without_samples_cannot_be_swapped():
    with pytest.raises(DataError, match="no training sample of class 7"):
        LabelNoise(0.1, swap=(1, 7)).apply(make(), K)


@pytest.mark.parametrize("noise", [LabelNoise(0.1), LabelNoise(0.1, swap=(2, 0))])
def test_noisy_labels_are_forgotten_and_unseen_ones_are_not(noise):
    samples = noise.apply(make(), K)
    candidates = torch.arange(0, N, 2)
    chosen = NoisyLabels().select(samples, candidates, 0, ["class"] * K)
    assert chosen.indices.tolist() == [i for i in range(0, N, 2) if samples.targets[i] != i % K]
    assert chosen.never_trained == []


def test_noisy_labels_need_noise():
    with pytest.raises(DataError, match="have no label noise"):
        NoisyLabels().select(make(), torch.arange(N), 0, [])
    with pytest.raises(DataError, match="No training sample has a wrong label"):
        NoisyLabels().select(LabelNoise(0.0).apply(make(), K), torch.arange(N), 0, [])
