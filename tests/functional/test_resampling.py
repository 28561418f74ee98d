import math

import pytest
import torch

from lightning_unlearn.functional.resampling import bootstrap_interval, jackknife_interval


def mean_difference(a, b):
    return a.mean() - b.mean()


def draws(m, n, generator):
    return torch.randn(m, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("interval", [jackknife_interval, bootstrap_interval])
def test_the_width_of_a_mean_is_known(interval):
    generator = torch.Generator().manual_seed(0)
    a, b = draws(60, 1, generator), 2 * draws(30, 1, generator)
    found = interval(mean_difference, a, b, 2000, generator=generator)
    error = math.sqrt(float(a.var()) / 60 + float(b.var()) / 30)
    assert found.value == pytest.approx(float(mean_difference(a, b)))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


@pytest.mark.parametrize("interval", [jackknife_interval, bootstrap_interval])
def test_the_interval_of_a_mean_covers(interval):
    generator = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(200):
        found = interval(mean_difference, draws(30, 1, generator) + 1, draws(30, 1, generator), 200, generator=generator)
        inside += found.low <= 1 <= found.high
    assert 0.9 <= inside / 200 <= 0.99


def test_models_are_drawn_and_not_samples():
    # Samples of one model are all alike: a thousand of them are worth one.
    generator = torch.Generator().manual_seed(2)
    a, b = draws(20, 1, generator), draws(20, 1, generator)
    for interval in (jackknife_interval, bootstrap_interval):
        one, many = (interval(mean_difference, a.expand(20, n), b.expand(20, n), 500, generator=generator) for n in (1, 1000))
        assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.15)


def test_a_generator_makes_it_repeatable():
    a, b = draws(9, 4, torch.Generator().manual_seed(0)), draws(9, 4, torch.Generator().manual_seed(1))
    for interval in (jackknife_interval, bootstrap_interval):
        one, two = (interval(mean_difference, a, b, 50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        assert one == two


def test_the_jackknife_never_has_a_model_twice():
    a, b = torch.arange(9.0).unsqueeze(1), torch.arange(10.0, 22.0).unsqueeze(1)

    def count(x, y):
        assert len(x.unique()) == len(x)
        assert len(y.unique()) == len(y)
        return torch.tensor(float(len(x) + len(y)))

    found = jackknife_interval(count, a, b, 20)
    assert found.value == 21
    assert found.high == found.low == 21
