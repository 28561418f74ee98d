import math

import pytest
import torch

from lightning_unlearn.attacks.threshold import auc
from lightning_unlearn.functional.divergences import jensen_shannon
from lightning_unlearn.metrics.forget_unseen import (
    forget_against_unseen,
    rf_jsd,
    shared_classes,
    streisand,
)
from lightning_unlearn.outputs import PartOutputs


def by_margin(margins, targets):
    """Two useful classes: a prediction with the given margins for its label."""
    margins, targets = torch.as_tensor(margins), torch.as_tensor(targets)
    logits = torch.full((len(margins), int(targets.max()) + 2), -1e4)
    logits[:, -1] = 0
    logits[torch.arange(len(margins)), targets] = margins.float()
    return PartOutputs(logits, targets, torch.arange(len(margins)))


def drawn(sizes, shift, generator):
    targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    # Classes of very different confidence: pooled over classes the ranks would say nothing.
    margins = torch.randn(len(targets), generator=generator) + 5 * targets + shift
    k = len(sizes)
    logits = torch.full((len(targets), k + 1), -1e4)
    logits[:, k] = 0
    logits[torch.arange(len(targets)), targets] = margins
    return PartOutputs(logits, targets, torch.arange(len(targets)))


def test_auc_class_by_class_by_hand():
    forget = by_margin([1.0, 3.0, 10.0], [0, 0, 1])
    unseen = PartOutputs(by_margin([2.0, 0.0, 11.0, 9.0], [0, 0, 1, 1]).logits, torch.tensor([0, 0, 1, 1]), torch.arange(4))
    # Class 0: 1 > 0, 3 > 2 and 0 -> 3/4 with weight 2/3; class 1: 1/2 with weight 1/3.
    assert forget_against_unseen(forget, unseen).value == pytest.approx(0.75 * 2 / 3 + 0.5 / 3)


def test_easy_classes_in_the_forget_set_do_not_look_like_memory():
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(200):
        forget, unseen = drawn([5, 100], 0, generator), drawn([200, 20], 0, generator)
        assert auc(forget.margins, unseen.margins) > 0.8
        values.append(forget_against_unseen(forget, unseen).value)
    values = torch.tensor(values)
    assert abs(values.mean() - 0.5) < 4 * values.std() / 200**0.5


@pytest.mark.parametrize("sizes", [([20, 20, 20], [50, 50, 50]), ([1] * 12, [6] * 12), ([60], [8]), ([5, 100], [200, 20])])
def test_the_interval_of_no_difference_covers(sizes):
    generator = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(200):
        found = forget_against_unseen(drawn(sizes[0], 0, generator), drawn(sizes[1], 0, generator))
        inside += found.low <= 0.5 <= found.high
    # 0.95, standard error 0.015.
    assert 0.9 <= inside / 200 <= 0.995


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_the_interval_of_a_difference_covers(shift):
    truth = 0.5 * (1 + math.erf(shift / 2))
    generator = torch.Generator().manual_seed(2)
    inside = seen = 0
    for _ in range(200):
        found = forget_against_unseen(drawn([30, 30], shift, generator), drawn([60, 60], 0, generator))
        inside += found.low <= truth <= found.high
        seen += not found.low <= 0.5 <= found.high
    assert 0.9 <= inside / 200 <= 0.995
    assert seen > 190


def test_a_perfect_separation_still_has_an_interval():
    found = forget_against_unseen(by_margin([5.0, 6.0], [0, 0]), by_margin([1.0, 2.0, 3.0], [0, 0, 0]))
    assert found.value == 1
    assert found.low < 1
    assert found.high == 1


def test_classes_without_unseen_samples_are_left_out(make_part):
    forget, unseen = make_part(40, k=4), make_part(60, k=4, seed=1)
    some = unseen.select(unseen.targets < 2)
    assert shared_classes(forget, some) == [0, 1]
    expected = forget_against_unseen(forget.select(forget.targets < 2), some)
    assert forget_against_unseen(forget, some) == expected
    nothing = forget.select(forget.targets == 3)
    assert forget_against_unseen(nothing, some) is None
    assert streisand(nothing, some) is None
    assert rf_jsd(nothing, some) is None


def test_streisand_by_hand():
    forget = by_margin(torch.tensor([0.2, 0.4, 0.9]).logit(), [0, 0, 1])
    unseen = by_margin(torch.tensor([0.5, 0.7, 0.8]).logit(), [0, 0, 1])
    assert streisand(forget, unseen).value == pytest.approx((-0.4 - 0.2 + 0.1) / 3, abs=1e-6)


@pytest.mark.parametrize(("shift", "sign"), [(-2.0, -1), (2.0, 1), (0.0, 0)])
def test_streisand_tells_the_sign(shift, sign):
    generator = torch.Generator().manual_seed(3)
    found = streisand(drawn([60], shift, generator), drawn([200], 0, generator))
    assert (found.low > 0) - (found.high < 0) == sign


@pytest.mark.parametrize("sizes", [([40, 40], [60, 60]), ([1] * 12, [5] * 12), ([100], [12])])
def test_the_interval_of_the_streisand_check_covers(sizes):
    generator = torch.Generator().manual_seed(4)
    inside = 0
    for _ in range(200):
        pair = []
        for size in sizes:
            targets = torch.repeat_interleave(torch.arange(len(size)), torch.tensor(size))
            confidence = 0.05 + 0.9 * torch.rand(len(targets), generator=generator)
            pair.append(by_margin(confidence.logit(), targets))
        found = streisand(*pair)
        inside += found.low <= 0 <= found.high
    assert 0.9 <= inside / 200 <= 0.995


def test_one_forgotten_sample_has_a_difference_but_no_interval():
    found = streisand(by_margin([0.0], [0]), by_margin([1.0, 2.0], [0, 0]))
    assert found.value < 0
    assert math.isnan(found.low)


def test_rf_jsd_compares_mean_predictions_of_classes(make_part):
    forget, unseen = make_part(40, k=3), make_part(60, k=3, seed=1, gain=2)
    values = []
    for c in range(3):
        p = forget.logits.double().softmax(1)[forget.targets == c].mean(0)
        q = unseen.logits.double().softmax(1)[unseen.targets == c].mean(0)
        m = (p + q) / 2
        values.append(((p * (p / m).log()).sum() + (q * (q / m).log()).sum()).item() / 2)
    assert rf_jsd(forget, unseen) == pytest.approx(sum(values) / 3)
    assert rf_jsd(forget, forget) == pytest.approx(0, abs=1e-12)
    assert rf_jsd(forget, unseen) < jensen_shannon(forget.logits, unseen.logits[:40]).mean()
