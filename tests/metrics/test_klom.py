import math

import numpy as np
import pytest
import torch

from lightning_unlearn.metrics.klom import KlomQuantile, klom


def draws(a, b, n, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(a + b, n, generator=generator, dtype=torch.float64)
    x[:a] += shift
    return x[:a], x[a:]


@pytest.mark.parametrize("bins", [20, 7, 1])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (16, 16), (30, 12)])
def test_against_histograms(a, b, bins):
    x, y = draws(a, b, 15, shift=1.0)
    for n, found in enumerate(klom(x, y, bins).tolist()):
        both = torch.cat([x[:, n], y[:, n]]).numpy()
        p, q = (np.histogram(g[:, n].numpy(), bins, (both.min(), both.max()))[0] / len(g) + 1e-5 for g in (x, y))
        p, q = p / p.sum(), q / q.sum()
        assert found == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-9)


@pytest.mark.parametrize(("models", "median", "p95"), [(100, 0.30, 0.66), (16, 3.8, 5.9)])
def test_identical_ensembles_read_what_is_known(models, median, p95):
    values = klom(*draws(models, models, 4000))
    assert float(values.median()) == pytest.approx(median, rel=0.1)
    assert float(values.quantile(0.95)) == pytest.approx(p95, rel=0.1)


def test_the_direction_is_from_the_unlearned_models_to_the_references():
    # All unlearned models in one of two bins, the references in both: log 2; the other way round an empty bin.
    x, y = torch.zeros(8, 1), torch.tensor([[0.0], [1.0]])
    assert klom(x, y, 2).item() == pytest.approx(math.log(2), abs=1e-3)
    assert klom(y, x, 2).item() > 4


def test_a_sample_that_all_models_agree_on_has_no_divergence():
    assert klom(torch.full((4, 2), 0.1), torch.full((5, 2), 0.1)).tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantiles_of_many_groupings(quantile):
    x, y = draws(9, 7, 40)
    pooled = torch.cat([x, y])
    groupings = torch.rand(6, 16, generator=torch.Generator().manual_seed(1)).argsort(1) < 9
    expected = [klom(pooled[row], pooled[~row]).quantile(quantile) for row in groupings]
    torch.testing.assert_close(KlomQuantile(quantile).over(pooled)(groupings), torch.stack(expected))


def test_bins_follow_the_joint_range():
    # A shift and a scale of all margins change nothing.
    x, y = draws(20, 20, 30)
    torch.testing.assert_close(klom(x, y), klom(4 * x - 1024, 4 * y - 1024), rtol=1e-6, atol=1e-6)


def test_samples_in_parts_are_as_all_at_once(monkeypatch):
    x, y = draws(8, 8, 33)
    whole, median = klom(x, y), KlomQuantile()(x, y)
    monkeypatch.setattr("lightning_unlearn.metrics.klom._LARGEST", 16 * 20 * 5)
    torch.testing.assert_close(klom(x, y), whole)
    torch.testing.assert_close(KlomQuantile()(x, y), median)
