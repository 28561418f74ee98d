import math

import pytest
import torch

from lightning_unlearn.functional.divergences import (
    entropy,
    jensen_shannon,
    kl_divergence,
    margin,
    modified_entropy,
)


def logits(n=50, k=7, scale=3.0, seed=0):
    return scale * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_margin_is_the_logit_of_the_confidence():
    z, y = logits(), torch.arange(50) % 7
    p = z.softmax(1)[torch.arange(50), y]
    torch.testing.assert_close(margin(z, y), torch.log(p / (1 - p)))


def test_margin_of_two_classes_is_the_difference_of_logits():
    z = torch.tensor([[1.5, -2.0], [0.0, 3.0]])
    assert margin(z, torch.tensor([0, 0])).tolist() == [3.5, -3.0]


def test_margin_of_uniform_predictions():
    assert margin(torch.zeros(1, 10), torch.tensor([4])).item() == pytest.approx(-math.log(9))


def test_margin_stays_finite_and_ordered_where_the_confidence_is_one_or_zero():
    z = torch.tensor([[1e4, 0, 0], [2e4, 0, 0], [-1e4, 0, 0], [3e38, -3e38, 0]])
    phi = margin(z, torch.zeros(4, dtype=torch.int64))
    assert phi.dtype == torch.float64
    assert bool(phi.isfinite().all())
    assert phi[1] > phi[0] > phi[2]


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_margin_of_coarser_logits_is_in_float64(kind):
    # Confidences of all three are 1 in float32, and margins of half precision overflow at 65,504.
    z = torch.tensor([[30.0, 0.0, 0.0], [30.5, 0.0, 0.0], [31.0, 0.0, 0.0]])
    assert len(z.softmax(1)[:, 0].unique()) == 1
    found = margin(z.to(kind), torch.zeros(3, dtype=torch.int64))
    assert found.dtype == torch.float64
    assert len(found.unique()) == 3
    assert margin(torch.tensor([[6e4, -6e4]]).to(kind), torch.tensor([0])).item() == pytest.approx(120000, rel=1e-2)


def test_margin_needs_two_classes():
    with pytest.raises(ValueError, match="at least two"):
        margin(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_kl_against_sums_over_classes():
    p, q = logits(seed=1).softmax(1), logits(seed=2).softmax(1)
    expected = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(kl_divergence(p.log(), q.log()), expected)
    assert kl_divergence(p.log(), q.log()).shape == (50,)


def test_kl_between_gaussian_like_closed_forms():
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-6)


def test_kl_of_impossible_classes():
    one, half = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert kl_divergence(one, half).item() == pytest.approx(math.log(2))
    assert kl_divergence(half, one).item() == math.inf
    assert kl_divergence(one, one).item() == 0


def test_jensen_shannon_against_its_definition():
    a, b = logits(seed=1), logits(seed=2)
    p, q = a.softmax(1), b.softmax(1)
    m = (p + q) / 2
    expected = ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)) / 2
    torch.testing.assert_close(jensen_shannon(a, b), expected)


def test_jensen_shannon_is_symmetric_bounded_and_zero_only_for_equal_predictions():
    a, b = logits(seed=1), logits(seed=2)
    assert jensen_shannon(a, b).equal(jensen_shannon(b, a))
    assert jensen_shannon(a, a + 5).abs().max() < 1e-14
    assert bool((jensen_shannon(a, b) > 0).all())
    far = jensen_shannon(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]))
    assert far.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_jensen_shannon_of_a_sure_and_a_uniform_prediction(k):
    sure = torch.zeros(1, k)
    sure[0, 0] = 200
    m = (1 + 1 / k) / 2
    expected = (-math.log(m) + math.log(1 / k / m) / k + (k - 1) / k * math.log(2)) / 2
    assert jensen_shannon(sure, torch.zeros(1, k)).item() == pytest.approx(expected, rel=1e-12)


def test_entropy():
    assert entropy(torch.zeros(1, 8)).item() == pytest.approx(math.log(8))
    assert entropy(torch.tensor([[1e4, 0.0]])).item() == pytest.approx(0, abs=1e-12)
    p = logits().softmax(1)
    torch.testing.assert_close(entropy(logits()), -(p * p.log()).sum(1))


def test_modified_entropy_against_scalars():
    z, y = logits(), torch.arange(50) % 7
    expected = []
    for row, label in zip(z.softmax(1).tolist(), y.tolist(), strict=True):
        value = -(1 - row[label]) * math.log(row[label])
        value -= sum(p * math.log(1 - p) for k, p in enumerate(row) if k != label)
        expected.append(value)
    torch.testing.assert_close(modified_entropy(z, y), torch.tensor(expected, dtype=torch.float64))


def test_modified_entropy_is_finite_for_sure_predictions_right_or_wrong():
    z = torch.tensor([[100.0, 0, 0], [100.0, 0, 0]])
    value = modified_entropy(z, torch.tensor([0, 1]))
    assert value[0].item() == pytest.approx(0, abs=1e-12)
    # p_y = e^-100 and p_0 = 1 - 2 e^-100: 100 + (100 - log 2).
    assert value[1].item() == pytest.approx(200 - math.log(2), rel=1e-12)
