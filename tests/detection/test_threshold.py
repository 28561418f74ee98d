import pytest
import torch

from lightning_unlearn.detection.report import _binned
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.exceptions import ConfigError

SCORES = torch.tensor([0.3, float("nan"), 0.9, -1.0, 0.5, 0.7])


@pytest.mark.parametrize(
    ("threshold", "chosen"),
    [
        (Threshold(count=2), [2, 5]),
        (Threshold(count=4), [0, 2, 4, 5]),
        # Of five scores the highest fifth, and the highest two fifths.
        (Threshold(quantile=0.8), [2]),
        (Threshold(quantile=0.6), [2, 5]),
    ],
)
def test_counts_and_quantiles_pass_over_samples_without_a_score(threshold, chosen):
    assert threshold.suspected(SCORES).nonzero().flatten().tolist() == chosen


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_a_mixture_finds_the_upper_part_in_any_unit(log, unit):
    torch.manual_seed(0)
    low, high = torch.randn(800).double() * 0.5 - 4, torch.randn(200).double() * 0.5 + 1
    values = torch.cat([low, high])
    scores = values.exp() * unit if log else values * unit
    suspected = Threshold().suspected(scores, log)
    assert int((suspected != (torch.arange(1000) >= 800)).sum()) <= 2


def test_the_far_lower_end_is_never_the_upper_part():
    torch.manual_seed(0)
    # A narrow part with a wide one above: far below, the wide one is the likelier too.
    scores = torch.cat([torch.randn(900).double() * 0.05, torch.randn(300).double() * 4 + 3, torch.tensor([-9.0]).double()])
    suspected = Threshold().suspected(scores)
    assert not bool(suspected[scores < -0.5].any())
    assert bool(suspected[scores > 3].all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_exactly_0_stand_with_the_smallest(dtype):
    torch.manual_seed(0)
    low, high = torch.randn(9000) * 0.5 - 4, torch.randn(905) * 0.5 + 1
    scores = torch.cat([torch.zeros(95), low.exp(), high.exp()]).to(dtype)
    suspected = Threshold().suspected(scores, log=True)
    assert int((suspected != (torch.arange(10000) >= 9095)).sum()) <= 20
    edges, place = _binned(scores, log=True)
    assert place[:95].tolist() == [0] * 95
    assert float(edges[0]) == pytest.approx(float(scores[95:].min()), rel=1e-5)
    # One score above 0: nothing to tell it from.
    assert not bool(Threshold().suspected(torch.tensor([0.0, 0.0, 3.0]), log=True).any())


def test_equal_scores_are_not_suspect():
    assert not bool(Threshold().suspected(torch.ones(9)).any())
    assert not bool(Threshold().suspected(torch.zeros(9), log=True).any())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": True}, "count is True"),
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"quantile": float("nan")}, "quantile is nan"),
        ({"count": 3, "quantile": 0.5}, "Both count 3 and quantile 0.5"),
    ],
)
def test_bad_thresholds(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Threshold(**arguments)


def test_as_many_as_there_are_or_more():
    for count in (5, 6):
        with pytest.raises(ConfigError, match=f"count is {count}, and 5 samples have scores"):
            Threshold(count=count).suspected(SCORES)
