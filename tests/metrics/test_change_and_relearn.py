import math

import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.change import churn, part_churn, weight_distance
from lightning_unlearn.metrics.relearn import relearn_gap


def test_churn_counts_every_sample_alike(make_outputs):
    a, b = make_outputs(seed=1), make_outputs(seed=2)
    predictions = [torch.cat([m.forget.predictions, m.retain.predictions, m.test.predictions]) for m in (a, b)]
    assert churn(a, b) == pytest.approx((predictions[0] != predictions[1]).double().mean().item())
    assert churn(a, a) == 0
    assert part_churn(a.test, b.test) == pytest.approx((a.test.predictions != b.test.predictions).double().mean().item())


def test_weight_distance_against_one_vector():
    generator = torch.Generator().manual_seed(0)
    old = {"w": torch.randn(4, 3, generator=generator), "b": torch.randn(3, generator=generator)}
    new = {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in old.items()}
    v, w = (torch.cat([s["w"].flatten(), s["b"]]).double() for s in (old, new))
    assert weight_distance(new, old) == pytest.approx(((w - v).norm() / v.norm()).item(), rel=1e-12)
    assert weight_distance(old, old) == 0
    assert weight_distance({n: 2 * t for n, t in old.items()}, old) == pytest.approx(1)


def test_weight_distance_ignores_counters_and_survives_zeros():
    a, b = {"steps": torch.tensor(3)}, {"steps": torch.tensor(9)}
    assert weight_distance(a, b) == 0
    assert weight_distance({"w": torch.ones(1)}, {"w": torch.zeros(1)}) == math.inf


def test_weights_of_two_architectures_are_not_compared():
    with pytest.raises(DataError, match="'b'"):
        weight_distance({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(DataError, match="'a'"):
        weight_distance({"a": torch.ones(1)}, {"a": torch.ones(2)})


def test_relearn_gap_is_signed_and_in_points(make_outputs):
    sure, unsure = make_outputs(gains=(8, 3, 1, 1)), make_outputs(gains=(0, 3, 1, 1), seed=1)
    gap = relearn_gap(sure, unsure)
    assert gap == pytest.approx(100 * (sure.forget.accuracy - unsure.forget.accuracy))
    assert gap > 50
    assert relearn_gap(unsure, sure) == -gap
    with pytest.raises(DataError, match="same samples"):
        relearn_gap(sure, make_outputs(split=1))
