import math
from itertools import combinations

import pytest
import torch

from lightning_unlearn.functional.permutation import (
    ModelStatistic,
    holm,
    permutation_test,
    smallest_detectable_shift,
)


class MeanDifference(ModelStatistic):
    """A statistic whose sums are of floats, so that equal groupings round differently."""

    def over(self, pooled):
        means = pooled.mean(1)

        def values(first):
            a = first.double()
            return (a @ means) / a.sum(1) - ((1 - a) @ means) / (1 - a).sum(1)

        return values


def draws(a, b, n=7, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(a + b, n, generator=generator, dtype=torch.float64)
    x[:a] += shift
    return x[:a], x[a:]


def test_p_is_that_of_all_groupings():
    a, b = draws(4, 5, shift=0.5)
    pooled, statistic = torch.cat([a, b]), MeanDifference()
    value = float(statistic(a, b))
    every = []
    for chosen in combinations(range(9), 4):
        first = torch.zeros(9, dtype=torch.bool)
        first[list(chosen)] = True
        every.append(float(statistic(pooled[first], pooled[~first])))
    exact = sum(v >= value - 1e-12 for v in every) / len(every)
    found = permutation_test(statistic, a, b, 20_000, torch.Generator().manual_seed(1))
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    every = torch.tensor(every)
    assert found.null_mean == pytest.approx(float(every.mean()), abs=0.02)
    assert found.null_std == pytest.approx(float(every.std()), rel=0.03)


def test_a_function_and_a_batched_statistic_agree():
    a, b = draws(6, 4)
    one = permutation_test(MeanDifference(), a, b, 50, torch.Generator().manual_seed(2))
    other = permutation_test(lambda x, y: x.mean() - y.mean(), a, b, 50, torch.Generator().manual_seed(2))
    torch.testing.assert_close(one.null, other.null)
    assert one.p == other.p


def test_batches_do_not_change_the_result(monkeypatch):
    a, b = draws(6, 4)
    whole = permutation_test(MeanDifference(), a, b, 99, torch.Generator().manual_seed(2))
    monkeypatch.setattr("lightning_unlearn.functional.permutation._BATCH", 1)
    apart = permutation_test(MeanDifference(), a, b, 99, torch.Generator().manual_seed(2))
    torch.testing.assert_close(apart.null, whole.null)
    assert apart.p == whole.p


def test_the_true_labels_count_among_the_permutations():
    # Never 0: with 99 permutations nothing is below 1 %.
    a, b = draws(20, 20, shift=5.0)
    assert permutation_test(MeanDifference(), a, b, 99).p == pytest.approx(0.01)
    assert permutation_test(MeanDifference(), a, b, 99, alternative="less").p == 1


def test_a_statistic_that_is_always_the_same_is_never_significant():
    # 0.1 is not exact in binary: sums of it round differently in every order.
    a, b = torch.full((7, 3), 0.1), torch.full((9, 3), 0.1)
    assert permutation_test(MeanDifference(), a, b, 199).p == 1


def test_every_model_is_as_likely_to_be_in_the_first_group():
    class Mask(ModelStatistic):
        def over(self, pooled):
            return lambda first: (first.double() @ pooled).squeeze(1)

    # The only model with a 1 is in the first group of 3 of 12 in a quarter of the permutations.
    a, b = torch.zeros(3, 1), torch.zeros(9, 1)
    b[4] = 1
    found = permutation_test(Mask(), a, b, 20_000, torch.Generator().manual_seed(0))
    assert found.null_mean == pytest.approx(0.25, abs=0.012)


def test_bad_groups_are_refused():
    good = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="at least 1"):
        permutation_test(MeanDifference(), good, good, 0)
    for bad in (torch.zeros(3, 5), torch.zeros(0, 4), torch.zeros(4)):
        with pytest.raises(ValueError, match="same samples"):
            permutation_test(MeanDifference(), good, bad)
    with pytest.raises(ValueError, match="not finite"):
        permutation_test(MeanDifference(), good, torch.full((3, 4), math.nan))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_holds_the_level_over_all_tests():
    p = torch.rand(4000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = sum(min(holm(row)) <= 0.05 for row in p.tolist()) / 4000
    assert wrong == pytest.approx(0.05, abs=0.011)


def detectable(a, b, generator, **kwargs):
    test = permutation_test(MeanDifference(), a, b, 499, generator, **kwargs)
    return smallest_detectable_shift(MeanDifference(), a, b, test, draws=200, generator=generator)


def test_the_detectable_shift_of_a_mean_is_that_of_the_textbook():
    # One sample, 200 models a side: 1.645 + 0.842 standard errors, one of which is sqrt(2 / 200) deviations.
    generator = torch.Generator().manual_seed(0)
    a, b = draws(200, 200, n=1)
    found = detectable(7 * a, 7 * b, generator)
    assert found.deviations == pytest.approx(2.487 * 0.1, rel=0.12)
    assert found.effect == pytest.approx(7 * 2.487 * 0.1, rel=0.12)
    below = detectable(-7 * a, -7 * b, generator, alternative="greater")
    assert below.deviations == pytest.approx(found.deviations, rel=0.15)


def test_a_leak_that_is_there_does_not_count_as_spread():
    generator = torch.Generator().manual_seed(0)
    a, b = draws(50, 50, n=1)
    quiet, loud = (detectable(a + shift, b, generator) for shift in (0.0, 0.4))
    assert loud.deviations == pytest.approx(quiet.deviations, rel=0.2)


def test_no_shift_is_measured_in_a_spread_of_zero():
    assert detectable(torch.zeros(4, 2), torch.zeros(4, 2), torch.Generator()).deviations == math.inf


def test_a_shift_that_no_test_can_find_is_infinite():
    # Of 2 and 2 models the true grouping is one of 6: p is never below 1/6.
    a, b = draws(2, 2, n=1)
    assert detectable(a, b, torch.Generator().manual_seed(0)).deviations == math.inf


def test_the_detectable_shift_is_found_as_often_as_it_says():
    generator = torch.Generator().manual_seed(3)
    claimed = [detectable(*draws(16, 16, n=5, seed=i), generator).deviations for i in range(8)]
    shift = sum(claimed) / len(claimed)
    found = 0
    for i in range(400):
        a, b = draws(16, 16, n=5, shift=shift, seed=1000 + i)
        found += permutation_test(MeanDifference(), a, b, 199, generator).p <= 0.05
    assert 0.72 <= found / 400 <= 0.87
