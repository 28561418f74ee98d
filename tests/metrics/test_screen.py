import json
import math
from statistics import fmean

import pytest
import torch

from lightning_unlearn.attacks.low_fpr import clopper_pearson
from lightning_unlearn.attacks.threshold import auc, tpr_at_fpr
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.metrics.change import churn
from lightning_unlearn.metrics.divergence import js_to_reference, kl_to_reference
from lightning_unlearn.metrics.forget_unseen import class_weights, forget_against_unseen, rf_jsd, streisand
from lightning_unlearn.metrics.gaps import average_gap, scores, signed_gaps, tug_of_war, tug_of_war_mia
from lightning_unlearn.metrics.relearn import relearn_gap
from lightning_unlearn.metrics.screen import levels, screen
from lightning_unlearn.outputs import Outputs, PartOutputs
from lightning_unlearn.report.labels import METRICS
from lightning_unlearn.thresholds import FEWEST_FORGOTTEN

REMEMBERED = (3.0, 3.0, 1.0, 1.0)


@pytest.fixture
def models(make_outputs):
    """An unlearned model, three references, the original, and all but the original after fine-tuning."""
    return {
        "unlearned": make_outputs(1, gains=(1.5, 3.0, 1.0, 1.0)),
        "references": [make_outputs(seed) for seed in (2, 3, 4)],
        "original": make_outputs(5, gains=REMEMBERED),
        "relearned": make_outputs(6, gains=(2.5, 3.0, 1.0, 1.0)),
        "references_relearned": [make_outputs(seed) for seed in (7, 8)],
    }


# Those of whole classes, and of data with a trigger, apart.
ALL = {
    "forget/acc", "retain/acc", "test/acc", "unseen/acc", "mia/efficacy", "mia/svc", "mia/auc", "mia/tpr@1fpr",
    "mia/tpr@1fpr/low", "mia/tpr@1fpr/high", "gap/avg", "gap/ua", "gap/ra", "gap/ta", "gap/mia", "gap_svc/avg",
    "relearn/acc", "relearn/gap", "churn", "js/forget", "js/test", "kl/forget", "kl/test", "forget_unseen/rf_jsd", "tow",
    "tow_mia", "forget_unseen/auc", "forget_unseen/auc/low", "forget_unseen/auc/high", "streisand", "streisand/low",
    "streisand/high",
}  # fmt: skip


def test_every_metric_is_there_and_has_a_unit(models):
    found = screen(**models, svc=True)
    assert set(found.metrics) == ALL
    assert set(METRICS) >= {*ALL, "test_forgotten/acc", "attack/success"}
    assert all(isinstance(v, float) and math.isfinite(v) for v in found.metrics.values())


def test_values_against_the_functions(models):
    found = screen(**models, seed=5).metrics
    u, references, original = models["unlearned"], models["references"], models["original"]
    own, theirs = scores(u, seed=5), [scores(r, seed=5) for r in references]
    assert found["forget/acc"] == pytest.approx(100 * u.forget.accuracy)
    assert found["retain/acc"] == pytest.approx(100 * u.retain.accuracy)
    assert found["test/acc"] == pytest.approx(100 * u.test.accuracy)
    assert found["unseen/acc"] == pytest.approx(100 * u.unseen.accuracy)
    assert found["mia/efficacy"] == own.mia
    weights = class_weights(u.forget, u.test)[1]
    assert found["mia/auc"] == auc(u.forget.margins, u.test.margins, weights)
    point = tpr_at_fpr(u.forget.margins, u.test.margins, 0.01, weights)
    assert found["mia/tpr@1fpr"] == pytest.approx(100 * point.tpr)
    low, high = clopper_pearson(round(point.tpr * len(u.forget)), len(u.forget))
    assert (found["mia/tpr@1fpr/low"], found["mia/tpr@1fpr/high"]) == (100 * low, 100 * high)
    assert found["gap/avg"] == pytest.approx(fmean(average_gap(own, r) for r in theirs))
    for name in ("ua", "ra", "ta", "mia"):
        assert found[f"gap/{name}"] == pytest.approx(fmean(abs(signed_gaps(own, r)[name]) for r in theirs))
    assert found["tow"] == pytest.approx(fmean(tug_of_war(own, r) for r in theirs))
    assert found["tow_mia"] == pytest.approx(fmean(tug_of_war_mia(own, r) for r in theirs))
    for name in ("forget", "test"):
        mine, others = u.parts()[name], [r.parts()[name] for r in references]
        assert found[f"js/{name}"] == pytest.approx(fmean(js_to_reference(mine, r).mean().item() for r in others))
        assert found[f"kl/{name}"] == pytest.approx(fmean(kl_to_reference(mine, r).mean().item() for r in others))
    assert found["relearn/acc"] == pytest.approx(100 * models["relearned"].forget.accuracy)
    assert found["relearn/gap"] == pytest.approx(
        fmean(relearn_gap(models["relearned"], r) for r in models["references_relearned"])
    )
    rank = forget_against_unseen(u.forget, u.unseen)
    assert found["forget_unseen/auc"] == rank.value
    assert (found["forget_unseen/auc/low"], found["forget_unseen/auc/high"]) == (rank.low, rank.high)
    assert found["forget_unseen/rf_jsd"] == rf_jsd(u.forget, original.unseen)
    assert found["streisand"] == streisand(u.forget, u.unseen).value
    assert found["churn"] == 100 * churn(u, original)


def test_details_are_plain_json(models):
    found = screen(**models)
    details = json.loads(json.dumps(found.details, allow_nan=False))
    assert details == found.details
    assert set(details["histograms"]["counts"]) == {"forget", "test", "unseen"} | {f"reference{i}_forget" for i in range(3)}
    curve = details["roc"]
    assert float(torch.trapezoid(torch.tensor(curve["tpr"]), torch.tensor(curve["fpr"]))) == pytest.approx(
        found.metrics["mia/auc"], abs=0.01
    )
    assert len(details["classes"]) == 5
    own, theirs = scores(models["unlearned"]), [scores(r) for r in models["references"]]
    assert details["gaps"]["per_reference"] == [signed_gaps(own, r) for r in theirs]
    assert details["gaps"]["ua"] == pytest.approx(fmean(signed_gaps(own, r)["ua"] for r in theirs))


def test_without_references_unseen_and_original_their_metrics_are_absent(make_outputs):
    found = screen(make_outputs(unseen=False), [])
    assert set(found.metrics) == {
        *("forget/acc", "retain/acc", "test/acc", "mia/efficacy", "mia/auc"),
        *("mia/tpr@1fpr", "mia/tpr@1fpr/low", "mia/tpr@1fpr/high"),
    }
    assert any(note.startswith("No reference") for note in found.notes)
    assert any(note.startswith("No unseen") for note in found.notes)


def test_a_reference_as_its_own_unlearned_model_has_no_gap(make_outputs):
    reference = make_outputs(2)
    found = screen(reference, [reference], relearned=reference, references_relearned=[reference]).metrics
    for name in ("gap/avg", "js/forget", "js/test", "kl/forget", "kl/test", "relearn/gap"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    assert found["tow"] == found["tow_mia"] == 1


def test_the_original_is_further_away_than_the_level(models):
    level = levels(models["references"], models["references_relearned"])
    original = screen(models["original"], models["references"]).metrics
    for name in ("gap/avg", "gap/ua", "js/forget", "kl/forget"):
        assert original[name] > level[name]
    assert original["gap/ua"] > 2 * level["gap/ua"]
    assert original["forget_unseen/auc/low"] > 0.5
    assert original["streisand/low"] > 0


def test_levels_against_pairs(models):
    references = models["references"]
    found = levels(references, models["references_relearned"], seed=2, svc=True)
    own = [scores(r, seed=2) for r in references]
    slow = [scores(r, seed=2, svc=True) for r in references]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert found["gap/avg"] == pytest.approx(fmean(average_gap(own[a], own[b]) for a, b in pairs))
    assert found["gap_svc/avg"] == pytest.approx(fmean(average_gap(slow[a], slow[b]) for a, b in pairs))
    assert found["tow"] == pytest.approx(fmean(tug_of_war(own[a], own[b]) for a, b in pairs))
    assert found["churn"] == pytest.approx(100 * fmean(churn(references[a], references[b]) for a, b in pairs))
    both = pairs + [(b, a) for a, b in pairs]
    assert found["kl/forget"] == pytest.approx(
        fmean(kl_to_reference(references[a].forget, references[b].forget).mean().item() for a, b in both)
    )
    a, b = models["references_relearned"]
    assert found["relearn/gap"] == pytest.approx(abs(relearn_gap(a, b)))


def test_the_level_of_relearning_is_of_the_kind_of_its_gap(models):
    """A gap to several references is the distance to their mean; so is the level, of one reference to the others."""
    again = [*models["references_relearned"], models["relearned"]]
    acc = [100 * outputs.forget.accuracy for outputs in again]
    assert len(set(acc)) == 3
    expected = fmean(abs(acc[i] - fmean(acc[:i] + acc[i + 1 :])) for i in range(3))
    assert levels(models["references"], again)["relearn/gap"] == pytest.approx(expected)


def test_levels_compare_what_the_screen_compares(models):
    against = {"gap/", "tow", "js/", "kl/", "relearn/gap", "churn", "gap_svc"}
    names = {n for n in screen(**models, svc=True).metrics if any(n.startswith(a) for a in against)}
    assert set(levels(models["references"], models["references_relearned"], svc=True)) == names


def test_levels_of_one_reference_are_unknown(make_outputs):
    assert levels([make_outputs()], [make_outputs()]) == {}
    assert levels([]) == {}


def test_removing_a_class(make_outputs):
    model, reference = make_outputs(1, gone=(2,)), make_outputs(2, gone=(2,))
    found = screen(model, [reference], goal="remove-class").metrics
    stays, gone = model.test.targets != 2, model.test.targets == 2
    assert found["test/acc"] == pytest.approx(100 * model.test.correct[stays].double().mean().item())
    assert found["test_forgotten/acc"] == pytest.approx(100 * model.test.correct[gone].double().mean().item())
    assert found["js/test"] == pytest.approx(
        js_to_reference(model.test.select(stays), reference.test.select(stays)).mean().item()
    )
    # D_f is compared with test samples of its own class: the others are told apart by the class alone.
    assert found["mia/auc"] == pytest.approx(auc(model.forget.margins, model.test.margins[gone]))


def of_classes(easy, hard, seed, first=0):
    """Outputs on samples of an easy and of a hard class, which the model knows alike whether it saw them or not."""
    targets = torch.tensor([0] * easy + [1] * hard)
    margins = torch.randn(len(targets), generator=torch.Generator().manual_seed(seed)) + torch.where(targets == 0, 4.0, 0.0)
    logits = torch.stack([torch.where(targets == 0, margins, 0), torch.where(targets == 1, margins, 0)], 1)
    return PartOutputs(logits, targets, torch.arange(first, first + len(targets)))


def test_an_attack_does_not_find_the_classes_that_were_asked_for():
    """D_f of a model that never saw it is mostly of an easy class, test samples are half of each."""
    model = Outputs(
        of_classes(900, 100, 1), of_classes(500, 500, 2, 1000), of_classes(400, 400, 3), of_classes(300, 300, 4, 9000)
    )
    found = screen(model, [])
    assert auc(model.forget.margins, model.test.margins) > 0.65
    assert found.metrics["mia/auc"] == pytest.approx(0.5, abs=0.03)
    assert found.metrics["mia/tpr@1fpr"] < 3
    curve = found.details["roc"]
    assert all(abs(t - f) < 0.08 for t, f in zip(curve["tpr"], curve["fpr"], strict=True))
    assert any("among 800 non-members (worth 487 of equal weight)" in note for note in found.notes)


def test_where_no_class_has_a_test_sample_the_attack_is_said_to_be_left_out():
    model = Outputs(of_classes(20, 0, 1), of_classes(50, 50, 2, 1000), of_classes(0, 30, 3))
    found = screen(model, [])
    assert "mia/auc" not in found.metrics
    assert "20 forgotten samples of classes without test samples were not attacked." in found.notes


def test_removing_a_class_that_still_has_samples_is_remarked(make_outputs):
    found = screen(make_outputs(), [], goal="remove-class")
    assert "test_forgotten/acc" not in found.metrics
    assert any("no class was removed" in note for note in found.notes)


def test_repair_does_not_compare_confidence_in_wrong_labels(models):
    found = screen(**models, goal="repair")
    for name in ("mia/auc", "mia/tpr@1fpr", "forget_unseen/auc", "streisand", "forget_unseen/rf_jsd"):
        assert name not in found.metrics
    assert "gap/avg" in found.metrics
    assert any("Goal repair" in note for note in found.notes)


def test_a_no_op_is_named(models):
    model = models["unlearned"]
    found = screen(model, [], model)
    assert found.metrics["churn"] == 0
    assert any(note.startswith("No-op") for note in found.notes)
    assert not any(note.startswith("No-op") for note in screen(model, [], models["original"]).notes)


def test_the_standard_error_of_few_forgotten_samples_is_stated(make_outputs):
    model = make_outputs(sizes=(40, 400, 300, 120))
    p = model.forget.accuracy
    expected = f"40 forgotten samples: the standard error of forget accuracy is {100 * math.sqrt(p * (1 - p) / 40):.1f} points."
    assert expected in screen(model, []).notes
    sure = make_outputs(sizes=(40, 400, 300, 120), gains=(50, 3, 1, 1))
    assert "40 forgotten samples: the standard error of forget accuracy is 1.8 points." in screen(sure, []).notes
    many = make_outputs(sizes=(400, 400, 300, 120))
    assert not any("standard error" in note for note in screen(many, []).notes)


def test_a_metric_that_does_not_tell_the_original_from_references_is_void(make_outputs):
    references, unlearned = [make_outputs(2), make_outputs(3)], make_outputs(1)

    def void(original):
        return [n.split(":")[0] for n in screen(unlearned, references, original).notes if n.startswith("Void")]

    assert void(references[0]) == ["Void for the average gap", "Void for JS on forgotten samples"]
    assert void(make_outputs(5, gains=(9, 3, 1, 1))) == []


def test_streisand_is_remarked_with_its_sign(make_outputs):
    def notes(gain):
        return [n for n in screen(make_outputs(gains=(gain, 3, 1, 1)), []).notes if n.startswith("Forgotten samples are")]

    assert len(notes(-2.0)) == 1
    assert "less certain" in notes(-2.0)[0]
    assert "more certain" in notes(4.0)[0]
    assert notes(1.0) == []


def test_few_non_members_give_no_low_rate(make_outputs):
    few = screen(make_outputs(sizes=(60, 400, 60, 120)), [])
    assert "mia/tpr@1fpr" not in few.metrics
    assert any("60 non-members" in note for note in few.notes)
    assert any("among 300 non-members" in note for note in screen(make_outputs(), []).notes)
    assert not any("non-members" in note for note in screen(make_outputs(sizes=(60, 99, 600, 9)), []).notes)


def test_one_sample_of_each_part_is_enough(make_outputs):
    found = screen(make_outputs(sizes=(1, 1, 1, 1), k=2), [make_outputs(1, sizes=(1, 1, 1, 1), k=2)])
    assert all(math.isfinite(v) for v in found.metrics.values())


def test_other_splits_and_goals_are_refused(make_outputs):
    with pytest.raises(DataError, match="one split"):
        screen(make_outputs(), [make_outputs(split=1)])
    with pytest.raises(DataError, match="one split"):
        screen(make_outputs(), [], make_outputs(split=1))
    with pytest.raises(DataError, match="one split"):
        screen(make_outputs(), [], relearned=make_outputs(split=1))
    with pytest.raises(DataError, match="one split"):
        levels([make_outputs(), make_outputs(split=1)])
    with pytest.raises(ConfigError, match="untrain, remove-class, repair"):
        screen(make_outputs(), [], goal="forget")


def test_the_seed_only_moves_the_draw_of_members(models):
    a, b = screen(**models, seed=0).metrics, screen(**models, seed=1).metrics
    moved = {name for name in a if a[name] != b[name]}
    assert moved <= {"mia/efficacy", "gap/avg", "gap/mia", "tow_mia"}
    assert a == screen(**models, seed=0).metrics


def test_a_large_logit_scale_gives_finite_metrics(models):
    def scaled(part):
        return PartOutputs(part.logits * 1e4, part.targets, part.index)

    model = models["unlearned"]
    wild = Outputs(*(scaled(part) for part in model.parts().values()))
    found = screen(wild, models["references"], models["original"])
    assert all(math.isfinite(v) for v in found.metrics.values())
    json.dumps(found.details, allow_nan=False)
    assert torch.isfinite(torch.tensor(found.details["histograms"]["edges"])).all()


@pytest.mark.parametrize("count", [FEWEST_FORGOTTEN - 1, 60])
def test_few_forgotten_samples_show_nothing(make_outputs, count):
    notes = screen(make_outputs(sizes=(count, 400, 300, 120), gains=(50, 3, 1, 1)), []).notes
    assert any(note.startswith("Forgotten samples are more certain") for note in notes) == (count == 60)
