"""Every test of the audit rejects at its level where nothing leaks, and finds what does leak.

By the functions that `audit.judging` calls, with fewer permutations.
"""

import pytest
import torch

from lightning_unlearn.attacks.ulira import MeanUlira
from lightning_unlearn.audit.measures import LEVEL, MEASURES, measure, told_apart
from lightning_unlearn.audit.statistics import compare
from lightning_unlearn.functional.permutation import smallest_detectable_shift

REPETITIONS = 2000
# On other parts of the data the last two measure what "klom/p95" does.
NAMES = [name for name in MEASURES if name not in ("klom/retain_p95", "klom/test_p95")]


def models(count, samples, generator, shift=0.0):
    """Margins of models that share a factor, with heavy tails; every fifth sample is rounded, so that models tie."""
    factor = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, samples, generator=generator, dtype=torch.float64)
    phi = 0.5 * factor + noise * noise.abs() + shift
    phi[:, ::5] = phi[:, ::5].round()
    return phi


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rejects_one_in_twenty_where_nothing_leaks(name):
    generator = torch.Generator().manual_seed(7)
    # F takes few values on few samples, and permutations that tie with the truth count against it: 2.7 % on 11 samples.
    samples, permutations = (60, 19) if name == "f" else (11, 99)
    pool = models(200, samples, generator)
    rejected = 0
    for _ in range(REPETITIONS):
        drawn = pool[torch.randperm(200, generator=generator)[:32]]
        rejected += told_apart(measure({}, name, drawn[:16], drawn[16:], permutations, generator).p)
    assert 0.037 <= rejected / REPETITIONS <= 0.064


@pytest.mark.parametrize("name", NAMES)
def test_finds_an_original(name):
    # All samples three deviations surer, as of a model that was trained on them.
    generator = torch.Generator().manual_seed(1)
    a, b = models(16, 40, generator, shift=4.0), models(16, 40, generator)
    assert measure({}, name, a, b, 1999, generator).p < 0.001


@pytest.mark.slow
def test_the_smallest_detectable_shift_is_found_with_its_power():
    statistic = MEASURES["rank_auc"].statistic
    generator = torch.Generator().manual_seed(2)

    def normal(shift=0.0):
        factor = torch.randn(24, 1, generator=generator, dtype=torch.float64)
        return (0.3 * factor + torch.randn(24, 20, generator=generator, dtype=torch.float64)) / 1.09**0.5 + shift

    def tested(a, b):
        return measure({}, "rank_auc", a, b, 199, generator)

    shifts = []
    for _ in range(12):
        a, b = normal(), normal()
        shifts.append(smallest_detectable_shift(statistic, a, b, tested(a, b), level=LEVEL, generator=generator).deviations)
    shift = sum(shifts) / len(shifts)
    found = sum(told_apart(tested(normal(shift), normal()).p) for _ in range(400))
    assert 0.72 <= found / 400 <= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "ulira"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_over_models_covers(name, shift):
    statistic = MeanUlira() if name == "ulira" else MEASURES[name].statistic
    generator = torch.Generator().manual_seed(3)
    drawn = [(models(16, 20, generator, shift), models(16, 20, generator)) for _ in range(400)]
    expected = sum(float(statistic(a, b)) for a, b in drawn) / 400
    inside = 0
    for a, b in drawn[:80]:
        found = {}
        compare(found, name, statistic, a, b, generator)
        inside += found[f"{name}/low"] <= expected <= found[f"{name}/high"]
    assert inside / 80 >= 0.88
