"""Every test of the audit rejects at its level where nothing leaks, and finds what does leak."""

import pytest
import torch

from lightning_unlearn.attacks.comparison import STATISTICS
from lightning_unlearn.functional.permutation import permutation_test, smallest_detectable_shift
from lightning_unlearn.functional.resampling import jackknife_interval

REPETITIONS = 2000


def models(count, samples, generator, shift=0.0):
    """Margins of models that share a factor, with heavy tails; every fifth sample is rounded, so that models tie."""
    factor = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, samples, generator=generator, dtype=torch.float64)
    phi = 0.5 * factor + noise * noise.abs() + shift
    phi[:, ::5] = phi[:, ::5].round()
    return phi


@pytest.mark.slow
@pytest.mark.parametrize("name", STATISTICS)
def test_rejects_one_in_twenty_where_nothing_leaks(name):
    statistic, alternative, _ = STATISTICS[name]
    generator = torch.Generator().manual_seed(7)
    # F takes few values on few samples, and permutations that tie with the truth count against it: 2.7 % on 11 samples.
    samples, permutations = (60, 19) if name == "forgetting_score" else (11, 99)
    pool = models(200, samples, generator)
    rejected = 0
    for _ in range(REPETITIONS):
        drawn = pool[torch.randperm(200, generator=generator)[:32]]
        rejected += permutation_test(statistic, drawn[:16], drawn[16:], permutations, generator, alternative).p <= 0.05
    assert 0.037 <= rejected / REPETITIONS <= 0.064


@pytest.mark.parametrize("name", STATISTICS)
def test_finds_an_original(name):
    # All samples three deviations surer, as of a model that was trained on them.
    statistic, alternative, _ = STATISTICS[name]
    generator = torch.Generator().manual_seed(1)
    a, b = models(16, 40, generator, shift=4.0), models(16, 40, generator)
    assert permutation_test(statistic, a, b, 1999, generator, alternative).p < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rank_auc", "ulira", "klom/median"])
def test_the_smallest_detectable_shift_is_found_with_its_power(name):
    statistic, alternative, _ = STATISTICS[name]
    generator = torch.Generator().manual_seed(2)

    def normal(shift=0.0):
        factor = torch.randn(24, 1, generator=generator, dtype=torch.float64)
        return (0.3 * factor + torch.randn(24, 20, generator=generator, dtype=torch.float64)) / 1.09**0.5 + shift

    shifts = []
    for _ in range(12):
        a, b = normal(), normal()
        test = permutation_test(statistic, a, b, 199, generator, alternative)
        shifts.append(smallest_detectable_shift(statistic, a, b, test, generator=generator).deviations)
    shift = sum(shifts) / len(shifts)
    found = sum(permutation_test(statistic, normal(shift), normal(), 199, generator, alternative).p <= 0.05 for _ in range(400))
    assert 0.72 <= found / 400 <= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rank_auc", "ulira", "klom/p95", "forgetting_score"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_over_models_covers(name, shift):
    statistic = STATISTICS[name].statistic
    generator = torch.Generator().manual_seed(3)
    drawn = [(models(16, 20, generator, shift), models(16, 20, generator)) for _ in range(400)]
    expected = sum(float(statistic(a, b)) for a, b in drawn) / 400
    intervals = [jackknife_interval(statistic, a, b, 60, generator=generator) for a, b in drawn[:80]]
    assert sum(i.low <= expected <= i.high for i in intervals) / 80 >= 0.88
