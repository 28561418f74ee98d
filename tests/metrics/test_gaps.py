from statistics import fmean

import pytest
import torch

from lightning_unlearn.attacks.svc import mia_svc
from lightning_unlearn.attacks.threshold import mia_efficacy
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.accuracy import accuracy_by_class, forgotten_classes, split_test
from lightning_unlearn.metrics.gaps import (
    Scores,
    average_gap,
    scores,
    signed_gaps,
    tug_of_war,
    tug_of_war_mia,
)
from lightning_unlearn.metrics.pairing import (
    check_same_samples,
    check_same_split,
    mean_over_references,
    reference_level,
)

U = Scores(ua=10, ra=90, ta=80, mia=20)
R = Scores(ua=14, ra=92, ta=79, mia=15)


def test_gaps_by_hand():
    assert signed_gaps(U, R) == {"ua": -4, "ra": -2, "ta": 1, "mia": 5}
    assert average_gap(U, R) == 3
    assert average_gap(U, U) == 0
    assert tug_of_war(U, R) == pytest.approx(0.96 * 0.98 * 0.99)
    assert tug_of_war_mia(U, R) == pytest.approx(0.95 * 0.98 * 0.99)
    assert tug_of_war(U, U) == tug_of_war_mia(U, U) == 1


def test_scores_of_a_model(make_outputs):
    model = make_outputs()
    found = scores(model, seed=2)
    assert found.ua == pytest.approx(100 - 100 * model.forget.accuracy)
    assert found.ra == 100 * model.retain.accuracy
    assert found.ta == 100 * model.test.accuracy
    parts = (model.forget.margins, model.retain.margins, model.test.margins)
    assert found.mia == 100 * mia_efficacy(*parts, model.retain.targets, seed=2, retain_index=model.retain.index)


def test_scores_with_the_svc_see_confidences(make_outputs):
    model = make_outputs()
    parts = (model.forget.confidence, model.retain.confidence, model.test.confidence)
    expected = mia_svc(*parts, model.retain.targets, retain_index=model.retain.index)
    found = scores(model, svc=True)
    assert found.mia == 100 * expected
    assert found.ra == scores(model).ra


def test_a_wholly_forgotten_class_is_left_out_of_ta(make_outputs):
    model = make_outputs(gone=(1, 4))
    assert forgotten_classes(model).tolist() == [1, 4]
    remaining, forgotten = split_test(model)
    keep = torch.tensor([int(y) not in (1, 4) for y in model.test.targets])
    assert remaining.index.equal(model.test.index[keep])
    assert forgotten.index.equal(model.test.index[~keep])
    right = (model.test.logits.argmax(1) == model.test.targets)[keep]
    assert scores(model).ta == pytest.approx(100 * right.double().mean().item())


def test_samples_of_every_class_leave_the_test_set_whole(make_outputs):
    model = make_outputs()
    assert forgotten_classes(model).tolist() == []
    assert split_test(model) == (model.test, None)


def test_a_test_set_of_forgotten_classes_only_is_refused(make_outputs):
    model = make_outputs(gone=(0,))
    only = model.test.select(model.test.targets == 0)
    with pytest.raises(DataError, match="forgotten class"):
        split_test(type(model)(model.forget, model.retain, only))


def test_accuracy_by_class(make_part):
    p = make_part(k=6)
    n, right = accuracy_by_class(p)
    for c in range(6):
        assert n[c] == (p.targets == c).sum()
        assert right[c] == ((p.targets == c) & (p.predictions == c)).sum()


def test_mean_over_references_and_level():
    references = [Scores(ua, 90, 80, 20) for ua in (8, 10, 16)]
    assert mean_over_references(average_gap, U, references) == pytest.approx((2 + 0 + 6) / 3 / 4)
    assert reference_level(average_gap, references) == pytest.approx((2 + 8 + 6) / 3 / 4)
    signed = reference_level(lambda a, b: a.ua - b.ua, references, ordered=True)
    assert signed == pytest.approx(0)
    pairs = [(a, b) for a in references for b in references if a is not b]
    assert reference_level(average_gap, references, ordered=True) == pytest.approx(fmean(average_gap(a, b) for a, b in pairs))


def test_a_level_needs_two_references():
    with pytest.raises(DataError, match="at least two"):
        reference_level(average_gap, [R])


def test_models_of_different_splits_are_not_compared(make_outputs, make_part):
    check_same_split(make_outputs(seed=1), make_outputs(seed=2))
    with pytest.raises(DataError, match="forget"):
        check_same_split(make_outputs(split=0), make_outputs(split=1))
    with pytest.raises(DataError, match="same samples"):
        check_same_samples(make_part(first=0), make_part(first=1))
    with pytest.raises(DataError, match="classes"):
        check_same_samples(make_part(k=4), make_part(k=5))
