import math

import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.forgetting_score import ForgettingScore, epsilons, final_score, forgetting_score, points


def draws(a, b, n, shift=0.0, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(a + b, n, generator=generator, dtype=torch.float64)
    x[:a] += shift
    x = (2 * x).round() if ties else x
    return x[:a], x[a:]


def of_attack(unlearned, retrained):
    """Epsilon of an attack from whom it calls unlearned, among the unlearned and among the retrained models."""
    fpr, fnr = sum(retrained) / len(retrained), sum(not u for u in unlearned) / len(unlearned)
    if fpr == 0 and fnr == 0:
        return math.inf
    if fpr == 0 or fnr == 0:
        return 0.0
    return max(math.log((1 - p) / q) if p < 1 else -math.inf for p, q in ((fpr, fnr), (fnr, fpr)))


def brute_force(x, y):
    """All thresholds, and all pairs of the 20-quantiles of the pooled margins, each way round."""
    pooled = sorted(x + y)
    places = {round(k * len(pooled) / 20) for k in range(21)}
    thresholds = [*pooled, math.inf]
    pairs = [(thresholds[i], thresholds[j]) for i in places for j in places if i < j]
    best = 0.0
    for low, high in [*((t, math.inf) for t in thresholds), *pairs]:
        u, r = [low <= v < high for v in x], [low <= v < high for v in y]
        best = max(best, of_attack(u, r), of_attack([not v for v in u], [not v for v in r]))
    return best


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("a", "b", "shift"), [(3, 3, 0.0), (6, 9, 0.5), (16, 16, 0.0), (16, 16, 2.0), (25, 25, 1.0)])
def test_against_brute_force(a, b, shift, ties):
    x, y = draws(a, b, 12, shift, ties=ties)
    expected = [brute_force(x[:, n].tolist(), y[:, n].tolist()) for n in range(12)]
    assert epsilons(x, y).tolist() == pytest.approx(expected, abs=1e-12)


def test_two_thresholds_by_hand():
    # Inside 2 <= phi < 6 are three of four unlearned and one of four retrained models: FPR and FNR 1/4, epsilon log 3.
    x, y = torch.tensor([[1.0, 2.0, 3.0, 5.0]]).T, torch.tensor([[0.0, 1.5, 4.0, 6.0]]).T
    assert epsilons(x, y).item() == pytest.approx(math.log(3))


def test_both_groups_are_alike():
    x, y = draws(9, 9, 40, 0.7)
    torch.testing.assert_close(epsilons(x, y), epsilons(y, x))
    torch.testing.assert_close(epsilons(x, y).isinf(), epsilons(-x, -y).isinf())


def test_separated_groups_have_no_bound():
    x, y = draws(8, 8, 5)
    assert epsilons(x + 100, y).tolist() == [math.inf] * 5
    # Retrained models around unlearned ones: two thresholds separate them, one does not.
    x, y = torch.zeros(10, 1), torch.tensor([-1.0, 1.0]).repeat(5).unsqueeze(1)
    assert epsilons(x, y).item() == math.inf


def test_models_that_all_agree_give_nothing_away():
    assert epsilons(torch.full((6, 2), 0.1), torch.full((7, 2), 0.1)).tolist() == [0, 0]


def test_points_halve_with_each_bin():
    found = points(torch.tensor([0.0, 0.49, 0.5, 0.99, 1.0, 5.9, 6.0, 50.0, math.inf]))
    assert found.tolist() == [1, 1, 0.5, 0.5, 0.25, 2**-11, 2**-12, 2**-12, 2**-12]
    assert forgetting_score(torch.tensor([0.0, 0.6, math.inf])) == pytest.approx((1 + 0.5 + 2**-12) / 3)


@pytest.mark.parametrize(("models", "f", "samples"), [(512, 0.21, 800), (128, 0.17, 2000)])
def test_a_perfect_unlearner_is_far_from_one(models, f, samples):
    assert forgetting_score(epsilons(*draws(models, models, samples))) == pytest.approx(f, abs=0.012)


def test_many_groupings_at_once():
    x, y = draws(9, 7, 30)
    pooled = torch.cat([x, y])
    groupings = torch.rand(6, 16, generator=torch.Generator().manual_seed(1)).argsort(1) < 9
    expected = [forgetting_score(epsilons(pooled[row], pooled[~row])) for row in groupings]
    assert ForgettingScore().over(pooled)(groupings).tolist() == pytest.approx(expected)


def test_the_final_score_pays_for_utility():
    assert final_score(0.2, (90, 100), (0.4, 0.8)) == pytest.approx(0.2 * 0.9 * 0.5)
    with pytest.raises(DataError, match="above 0"):
        final_score(0.2, (90, 0), (80, 80))
