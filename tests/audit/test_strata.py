import torch

from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.audit.strata import of_remaining_classes, strata_of
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.report.audit_schema import WHOLE


def answers(forget, correct=None, **parts):
    margins = {"forget": forget, **parts}
    return Answers(margins, {"forget": forget > 0 if correct is None else correct}, {})


def found(data, *groups, **kwargs):
    forget = data.part("forget")[1]
    return {stratum.name: stratum for stratum in strata_of(data, forget, *groups, **kwargs)}


def test_hardest_and_most_memorised_samples_are_found(make_data):
    data = make_data(label_noise=LabelNoise(0.5))
    n = len(data.part("forget")[1])
    held_out = answers(torch.arange(float(n)).double().expand(3, n) - n / 2)
    original = answers(torch.ones(3, n).double())
    strata = found(data, held_out, held_out, original)
    quarter = round(n / 4)
    assert next(iter(strata)) == WHOLE
    assert bool(strata[WHOLE].mask.all())
    assert strata["hardest quarter"].mask.nonzero().flatten().tolist() == list(range(quarter))
    # Held-out references are right about the upper half without having seen it.
    memorised = strata["most memorised quarter"].mask
    assert int(memorised.sum()) == quarter
    assert not bool(memorised[n // 2 + 1 :].any())


def test_wrong_labels_and_classes_are_strata(make_data):
    data = make_data(label_noise=LabelNoise(0.5))
    samples, forget = data.part("forget")
    margins = answers(torch.randn(2, len(forget)).double())
    strata = found(data, margins, None, None)
    wrong = samples.targets[forget] != samples.true_targets[forget]
    assert torch.equal(strata["mislabelled"].mask, wrong)
    counts = torch.bincount(samples.targets[forget], minlength=10)
    assert {name for name in strata if name.startswith("class")} == {f"class {i}" for i in range(10) if counts[i] >= 5}
    assert "hardest quarter" not in strata
    assert "mislabelled" not in found(make_data(), margins, None, None)


def test_other_states_and_retained_samples_are_strata_where_they_were_asked(make_data):
    data = make_data()
    margins = torch.randn(2, 30).double()
    asked = answers(margins, retain=torch.randn(2, 7).double(), **{"forget/int8": margins, "forget/relearned": margins})
    strata = found(data, asked, None, None, relearn_epochs=2)
    assert strata["retained"].of(asked).shape == (2, 7)
    assert strata[f"{WHOLE}, int8 weights"].part == "forget/int8"
    assert strata[f"{WHOLE}, after 2 epochs on retained samples alone"].part == "forget/relearned"
    assert len(found(data, answers(margins), None, None)) < len(strata)


def test_test_samples_of_forgotten_classes_are_told_from_the_others(make_data):
    data = make_data(forget=WholeClasses([3]))
    samples, test = data.part("test")
    assert torch.equal(of_remaining_classes(data, test), samples.targets[test] != 3)
    assert of_remaining_classes(make_data(), test) is None
