import itertools

import pytest
import torch

from lightning_unlearn.attacks.rank_auc import MeanRankAuc, rank_auc


def draws(a, b, n, ties=False, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(a + b, n, generator=generator, dtype=torch.float64)
    x[:a] += shift
    x = (2 * x).round() if ties else x
    return x[:a], x[a:]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (4, 4), (7, 3)])
def test_against_all_pairs_of_models(a, b, ties):
    x, y = draws(a, b, 20, ties)
    for n, found in enumerate(rank_auc(x, y).tolist()):
        pairs = itertools.product(x[:, n].tolist(), y[:, n].tolist())
        one_sided = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs) / (a * b)
        assert found == pytest.approx(max(one_sided, 1 - one_sided), abs=1e-12)


def test_both_directions_count():
    x, y = draws(9, 9, 30, shift=3.0)
    torch.testing.assert_close(rank_auc(x, y), rank_auc(-x, -y))
    torch.testing.assert_close(rank_auc(x, y), rank_auc(y, x))
    assert rank_auc(x, y).mean() > 0.9


@pytest.mark.parametrize(("models", "null"), [(16, 0.584), (40, 0.552)])
def test_the_null_is_known(models, null):
    assert float(rank_auc(*draws(models, models, 8000)).mean()) == pytest.approx(null, abs=0.0025)


@pytest.mark.parametrize("ties", [False, True])
def test_the_mean_over_samples_for_many_groupings(ties):
    x, y = draws(6, 4, 30, ties)
    pooled = torch.cat([x, y])
    groupings = torch.rand(12, 10, generator=torch.Generator().manual_seed(1)).argsort(1) < 6
    expected = [rank_auc(pooled[row], pooled[~row]).mean() for row in groupings]
    torch.testing.assert_close(MeanRankAuc().over(pooled)(groupings), torch.stack(expected))
    assert float(MeanRankAuc()(x, y)) == pytest.approx(float(rank_auc(x, y).mean()))


def test_margins_that_differ_less_than_single_precision_are_told_apart():
    x = 30 + 1e-9 * torch.arange(4, dtype=torch.float64).unsqueeze(1)
    assert rank_auc(x + 1e-8, x).item() == 1
