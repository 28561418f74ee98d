import itertools
import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_unlearn.attacks.threshold import (
    auc,
    mia_efficacy,
    roc,
    threshold_attack,
    tpr_at_fpr,
)
from lightning_unlearn.exceptions import DataError


def draws(n, m, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    members = torch.randn(n, generator=generator, dtype=torch.float64) + 0.7
    others = torch.randn(m, generator=generator, dtype=torch.float64)
    return ((2 * members).round(), (2 * others).round()) if ties else (members, others)


SIZES = [(1, 1), (1, 6), (7, 3), (40, 25)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_threshold_is_the_best_of_all(n, m, ties):
    for seed in range(20):
        members, others = draws(n, m, ties, seed)
        found = threshold_attack(members, others)

        def balanced(t, members=members, others=others):
            return ((members >= t).double().mean().item() + (others < t).double().mean().item()) / 2

        pooled = [*torch.cat([members, others]).unique().tolist(), math.inf]
        best = max(balanced(t) for t in pooled)
        assert balanced(found.threshold) == pytest.approx(best, abs=1e-12)
        assert found.balanced_accuracy == pytest.approx(best, abs=1e-12)
        assert found.threshold == min(t for t in pooled if balanced(t) > best - 1e-9)


def test_ties_fall_on_one_side_and_the_lowest_best_threshold_is_taken():
    same = torch.ones(5)
    found = threshold_attack(same, same)
    assert (found.threshold, found.balanced_accuracy) == (1.0, 0.5)
    assert bool(found.is_member(same).all())
    # 2.0 and 4.0 are equally good.
    found = threshold_attack(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0]))
    assert (found.threshold, found.balanced_accuracy) == (2.0, 0.75)


def test_members_below_all_others_leave_a_useless_attack():
    found = threshold_attack(torch.tensor([0.0]), torch.tensor([1.0]))
    assert found.balanced_accuracy == pytest.approx(0.5)


def test_the_attack_is_the_same_on_margins_and_confidences():
    members, others = draws(200, 100, False, 1)
    on_margins = threshold_attack(members, others)
    on_confidences = threshold_attack(members.sigmoid(), others.sigmoid())
    assert on_margins.balanced_accuracy == on_confidences.balanced_accuracy
    assert torch.tensor(on_margins.threshold, dtype=torch.float64).sigmoid().item() == on_confidences.threshold


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_auc_against_all_pairs(n, m, ties):
    members, others = draws(n, m, ties, 3)
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(members.tolist(), others.tolist())]
    assert auc(members, others) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


def test_auc_of_equal_scores_is_a_half():
    assert auc(torch.zeros(3), torch.zeros(4)) == pytest.approx(0.5)


def test_roc_spans_the_square_and_holds_the_auc():
    members, others = draws(300, 200, True, 4)
    curve = roc(members, others)
    assert (curve.fpr[0], curve.tpr[0], curve.thresholds[0]) == (0, 0, math.inf)
    assert (curve.fpr[-1], curve.tpr[-1]) == (1, 1)
    assert bool((curve.thresholds[1:] < curve.thresholds[:-1]).all())
    assert torch.trapezoid(curve.tpr, curve.fpr).item() == pytest.approx(auc(members, others), abs=1e-12)
    labels = torch.cat([torch.ones(300), torch.zeros(200)])
    assert auc(members, others) == pytest.approx(roc_auc_score(labels, torch.cat([members, others])))
    for fpr, tpr, t in zip(curve.fpr, curve.tpr, curve.thresholds, strict=True):
        assert fpr.item() == pytest.approx((others >= t).double().mean().item())
        assert tpr.item() == pytest.approx((members >= t).double().mean().item())


@pytest.mark.parametrize("bound", [0.0, 0.01, 0.013, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_tpr_is_the_largest_within_the_bound(bound, ties):
    for m in (30, 100, 150):
        members, others = draws(200, m, ties, 5)
        found = tpr_at_fpr(members, others, bound)
        allowed = [t for t in [math.inf, *torch.cat([members, others]).tolist()] if int((others >= t).sum()) / m <= bound]
        assert found.fpr <= bound
        assert found.fpr == pytest.approx((others >= found.threshold).double().mean().item())
        assert found.tpr == pytest.approx(max((members >= t).double().mean().item() for t in allowed))


def test_a_bound_that_a_whole_number_of_samples_meets_is_used_up():
    scores = torch.arange(100.0)
    assert tpr_at_fpr(scores, scores, 0.29).fpr == pytest.approx(0.29)


def test_tpr_bound_is_checked():
    with pytest.raises(DataError, match="0 to 1"):
        tpr_at_fpr(torch.zeros(1), torch.zeros(1), 1.5)


def test_efficacy_by_hand():
    # Threshold 3 separates retain from test; two of four forgotten samples are below it.
    share = mia_efficacy(
        torch.tensor([1.0, 2.5, 3.5, 9.0]),
        torch.tensor([3.0, 4.0, 5.0]),
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([0, 1, 2]),
    )
    assert share == pytest.approx(0.5)


def test_efficacy_uses_as_many_members_as_there_are_non_members():
    generator = torch.Generator().manual_seed(0)
    retain = torch.randn(900, generator=generator) + 1
    y = torch.randint(3, (900,), generator=generator)
    forget, test = torch.randn(50, generator=generator), torch.randn(90, generator=generator)
    a = mia_efficacy(forget, retain, test, y, seed=1)
    assert a == mia_efficacy(forget, retain, test, y, seed=1)
    assert len({mia_efficacy(forget, retain, test, y, seed=s) for s in range(10)}) > 1
    # With fewer retained than test samples, test samples are drawn.
    assert 0 <= mia_efficacy(forget, retain[:20], test, y[:20]) <= 1


def test_bad_scores_are_refused():
    good, y = torch.zeros(3), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(DataError, match="at least one sample"):
        auc(torch.zeros(0), good)
    with pytest.raises(DataError, match="NaN"):
        roc(good, torch.tensor([0.0, math.nan]))
    with pytest.raises(DataError, match="one label per score"):
        mia_efficacy(good, good, good, y[:2])
    with pytest.raises(DataError, match="forgotten sample"):
        mia_efficacy(torch.zeros(0), good, good, y)


def test_a_weight_counts_as_so_many_copies():
    generator = torch.Generator().manual_seed(0)
    members, others = (torch.randint(20, (n,), generator=generator).float() for n in (40, 60))
    copies = torch.randint(1, 6, (60,), generator=generator)
    weights = copies.double() / 7
    repeated = others.repeat_interleave(copies)
    assert auc(members, others, weights) == pytest.approx(auc(members, repeated))
    weighted, plain = roc(members, others, weights), roc(members, repeated)
    torch.testing.assert_close(weighted.fpr, plain.fpr)
    torch.testing.assert_close(weighted.tpr, plain.tpr)
    for fpr in (0.0, 0.1, float(plain.fpr[3])):
        assert tpr_at_fpr(members, others, fpr, weights).threshold == tpr_at_fpr(members, repeated, fpr).threshold
