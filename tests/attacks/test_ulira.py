from statistics import NormalDist, fmean, variance

import pytest
import torch

from lightning_unlearn.attacks.ulira import MeanUlira, ulira
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.ranks import mid_ranks


def draws(a, b, n, shift=0.0, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(a + b, n, generator=generator, dtype=torch.float64)
    x[:a] = scale * x[:a] + shift
    return x[:a], x[a:]


def one_by_one(x, y):
    """Log-likelihood ratios of one sample, every fit made anew without the model that is judged."""

    def ratio(value, own, other):
        return [NormalDist(fmean(g), variance(g) ** 0.5).pdf(value) for g in (own, other)]

    right = []
    for group, rest in ((x, y), (y, x)):
        found = [ratio(v, group[:i] + group[i + 1 :], rest) for i, v in enumerate(group)]
        right.append(fmean(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in found))
    return 100 * fmean(right)


@pytest.mark.parametrize("form", ["gaussian", "rank"])
@pytest.mark.parametrize(("a", "b"), [(3, 3), (10, 7), (16, 16)])
def test_against_fits_made_one_by_one(a, b, form):
    x, y = draws(a, b, 25, shift=0.8, scale=1.5)
    pooled = torch.cat([x, y]) if form == "gaussian" else mid_ranks(torch.cat([x, y]))
    expected = [one_by_one(pooled[:a, n].tolist(), pooled[a:, n].tolist()) for n in range(25)]
    assert ulira(x, y, form).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("form", ["gaussian", "rank"])
def test_many_groupings_at_once(form):
    x, y = draws(7, 5, 20)
    pooled = torch.cat([x, y])
    groupings = torch.rand(9, 12, generator=torch.Generator().manual_seed(1)).argsort(1) < 7
    expected = [ulira(pooled[row], pooled[~row], form).mean() for row in groupings]
    torch.testing.assert_close(MeanUlira(form).over(pooled)(groupings), torch.stack(expected))


@pytest.mark.parametrize("form", ["gaussian", "rank"])
def test_nothing_leaks_and_something_does(form):
    assert float(ulira(*draws(10, 10, 4000), form).mean()) == pytest.approx(50, abs=1)
    assert float(ulira(*draws(40, 40, 400, shift=6.0), form).mean()) > 99


def test_a_wider_distribution_is_a_leak_too():
    assert float(ulira(*draws(40, 40, 400, scale=5.0)).mean()) > 70


@pytest.mark.parametrize("form", ["gaussian", "rank"])
def test_models_that_all_agree_are_a_coin_toss(form):
    # 0.1 is not exact in binary: the sums must not tell the models apart.
    assert ulira(torch.full((5, 2), 0.1), torch.full((6, 2), 0.1), form).tolist() == [50, 50]


def test_large_margins_cancel_no_digits():
    x, y = draws(12, 12, 30, shift=0.7)
    torch.testing.assert_close(ulira(x + 1e6, y + 1e6), ulira(x, y))


def test_one_outlier_spoils_the_gaussian_and_not_the_ranks():
    x, y = draws(20, 20, 50, shift=3.0)
    x[0] = 1e4
    assert float(ulira(x, y, "rank").mean()) > 85
    assert float(ulira(x, y).mean()) < float(ulira(x, y, "rank").mean())


def test_too_few_models_are_refused():
    with pytest.raises(DataError, match="at least 3"):
        ulira(*draws(2, 5, 4))
    with pytest.raises(DataError, match="gaussian or rank"):
        ulira(*draws(5, 5, 4), "normal")
