import math

import pytest
import torch

from lightning_unlearn.attacks.low_fpr import clopper_pearson, low_fpr
from lightning_unlearn.attacks.threshold import tpr_at_fpr
from lightning_unlearn.exceptions import DataError


def draws(shape_a, shape_b, shift=1.0, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(*shape_a, generator=generator, dtype=torch.float64) + shift
    b = torch.randn(*shape_b, generator=generator, dtype=torch.float64)
    return ((5 * a).round(), (5 * b).round()) if ties else (a, b)


@pytest.mark.parametrize("fpr", [0.01, 0.001])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [5000, 5001, 7777])
def test_the_stated_rate_is_never_exceeded(fpr, ties, count):
    members, others = draws((300,), (count,), ties=ties)
    point, found = tpr_at_fpr(members, others, fpr), low_fpr(members, others, fpr)
    assert float((others >= point.threshold).double().mean()) == pytest.approx(point.fpr)
    assert point.fpr <= fpr
    assert found.value == point.tpr == pytest.approx(float((members >= point.threshold).double().mean()))
    assert found.low <= found.value <= found.high


def test_a_rate_needs_enough_non_members():
    members, others = draws((50,), (4999,))
    assert low_fpr(members, others, 0.001) is None
    assert low_fpr(members, others, 0.01) is not None
    assert low_fpr(members, others[:499], 0.01) is None
    with pytest.raises(DataError, match="needed: one of"):
        low_fpr(members, others, 0.05)


def test_scores_of_several_models_are_pooled_and_models_are_drawn():
    members, others = draws((6, 100), (8, 100), ties=True)
    generator = torch.Generator().manual_seed(1)
    found = low_fpr(members, others, 0.01, draws=200, generator=generator)
    assert found.value == tpr_at_fpr(members.flatten(), others.flatten(), 0.01).tpr
    # A model that differs from the rest widens the interval over models and not the one over scores.
    odd = members.clone()
    odd[0] += 10
    wide = low_fpr(odd, others, 0.01, draws=200, generator=generator)
    assert wide.high - wide.low > 3 * (found.high - found.low)
    alone = low_fpr(odd.flatten(), others.flatten(), 0.01)
    assert wide.high - wide.low > 2 * (alone.high - alone.low)


def test_one_model_against_several_is_refused():
    with pytest.raises(DataError, match="of several"):
        low_fpr(torch.zeros(600), torch.zeros(6, 100), 0.01)


@pytest.mark.slow
def test_the_interval_over_models_covers():
    # Models of a group share a shift of their own: the score of one sample tells of the others.
    generator = torch.Generator().manual_seed(0)

    def group(models, shift):
        own = 0.5 * torch.randn(models, 1, generator=generator, dtype=torch.float64)
        return own + torch.randn(models, 40, generator=generator, dtype=torch.float64) + shift

    truth = low_fpr(group(5000, 1.5).flatten(), group(5000, 0.0).flatten(), 0.01).value
    inside = 0
    for _ in range(80):
        found = low_fpr(group(20, 1.5), group(20, 0.0), 0.01, draws=60, generator=generator)
        inside += found.low <= truth <= found.high
    assert 0.85 <= inside / 80 <= 1


@pytest.mark.parametrize(("k", "n"), [(3, 10), (1, 200), (120, 400), (0, 30), (30, 30), (40, 900)])
def test_clopper_pearson_against_its_defining_equations(k, n):
    low, high = clopper_pearson(k, n)

    def at_least(k, p):
        return sum(math.exp(math.log(math.comb(n, i)) + i * math.log(p) + (n - i) * math.log1p(-p)) for i in range(k, n + 1))

    assert low == 0 if k == 0 else at_least(k, low) == pytest.approx(0.025, rel=1e-6)
    assert high == 1 if k == n else 1 - at_least(k + 1, high) == pytest.approx(0.025, rel=1e-6)
