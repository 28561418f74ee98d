import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.divergence import (
    JensenShannonToReference,
    ZeroRetrainForgetting,
    js_to_reference,
    kl_to_reference,
    zero_retrain_forgetting,
)
from lightning_unlearn.outputs import PartOutputs


def pair(make_part):
    u = make_part(30, seed=0)
    noise = torch.randn(30, 5, generator=torch.Generator().manual_seed(9))
    return u, PartOutputs(u.logits + noise, u.targets, u.index)


def test_direction_of_kl_is_from_the_reference(make_part):
    u, r = pair(make_part)
    p_u, p_r = u.probabilities, r.probabilities
    torch.testing.assert_close(kl_to_reference(u, r), (p_r * (p_r / p_u).log()).sum(1))
    assert not torch.allclose(kl_to_reference(u, r), kl_to_reference(r, u))


def test_js_against_its_definition(make_part):
    u, r = pair(make_part)
    p, q = u.probabilities, r.probabilities
    m = (p + q) / 2
    torch.testing.assert_close(js_to_reference(u, r), ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)) / 2)


def test_js_is_per_sample(make_part):
    # The same predictions in another order: equal distributions, different samples.
    u = make_part(30)
    shuffled = PartOutputs(u.logits.flip(0), u.targets, u.index)
    assert js_to_reference(u, shuffled).mean() > 0.05


def test_other_samples_are_refused(make_part):
    for metric in (js_to_reference, kl_to_reference):
        with pytest.raises(DataError, match="same samples"):
            metric(make_part(first=0), make_part(first=1))


def test_zrf_of_the_random_network_itself_is_one(make_part):
    u, r = pair(make_part)
    assert zero_retrain_forgetting(u, u) == pytest.approx(1)
    assert 0 < zero_retrain_forgetting(u, r) < 1


def test_logged_js_finds_each_sample_by_its_index(make_part):
    u, r = pair(make_part)
    metric = JensenShannonToReference(r)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    for rows in order.split(7):
        metric.update(u.logits[rows], u.targets[rows], u.index[rows])
    assert metric.compute().item() == pytest.approx(js_to_reference(u, r).mean().item())
    assert metric.higher_is_better is False


def test_logged_js_refuses_samples_without_a_reference(make_part):
    u, r = pair(make_part)
    metric = JensenShannonToReference(r.select(r.index < 20))
    with pytest.raises(DataError, match="10 of 30"):
        metric.update(u.logits, u.targets, u.index)


def test_logged_zrf_is_that_of_the_outputs(make_part):
    u, random = pair(make_part)
    metric = ZeroRetrainForgetting(random)
    for rows in torch.arange(30).split(7):
        metric.update(u.logits[rows], u.targets[rows], u.index[rows])
    assert metric.compute().item() == pytest.approx(zero_retrain_forgetting(u, random))
    assert metric.higher_is_better is None
