import functools
import math
import re

import pytest
import torch
from groups import SIZES, group, relearned

from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.audit.judging import CEILING, ZERO, Contender, Judge
from lightning_unlearn.audit.strata import Stratum
from lightning_unlearn.metrics.klom import klom
from lightning_unlearn.report.audit_schema import WHOLE

EVERY = torch.ones(SIZES["forget"], dtype=torch.bool)
HALF = torch.arange(SIZES["forget"]) < 20
STRATA = [
    Stratum(WHOLE, "forget", EVERY),
    Stratum("first half", "forget", HALF),
    Stratum("second half", "forget", ~HALF),
    Stratum("retained", "retain", torch.ones(SIZES["retain"], dtype=torch.bool)),
]
SHADOW = ("forget", "test", "unseen")


def groups(shift):
    """Margins of the forgotten samples in `judged`: those of the method and of the references."""
    return group(12, shift, seed=3).margins["forget"], group(12, seed=1).margins["forget"]


@functools.cache
def judged(shift=0.0, zero=0.0, ceiling=3.0, models=12, benchmark=False, half=False, **kwargs):
    """An audit of one method that leaves a shift in all forgotten samples, or in half of them, beside zero and ceiling."""
    unlearned = group(models, shift, seed=3, shifted=HALF if half else None)
    if kwargs.pop("knows_retained", False):
        unlearned.margins["retain"] += 3
    contenders = [
        Contender(ZERO, "zero", group(models, zero, seed=2)),
        Contender("mine", "method", unlearned, group(models, seed=5, parts=SHADOW), **kwargs),
        Contender(CEILING, "ceiling", group(models, ceiling, seed=4), group(models, seed=2)),
    ]
    keys = [f"key{i}" for i in range(SIZES["forget"])]
    return Judge(group(models, seed=1), STRATA, benchmark).audit("r", contenders, keys, ["a"] * len(keys))


def line(audit, method, stratum=WHOLE):
    return next(found for found in audit.lines if (found.method, found.stratum) == (method, stratum))


def test_what_does_not_leak_is_not_distinguished_and_the_power_is_said():
    audit = judged()
    assert not audit.void
    mine = line(audit, "mine")
    assert re.match(r"not distinguished at this power \(smallest detectable shift: 0\.\d+ standard deviations", mine.verdict)
    assert 0.02 < mine.metrics["rank_auc/shift"] < 0.2
    assert mine.metrics["rank_auc"] == pytest.approx(mine.metrics["rank_auc/null"], abs=4 * mine.metrics["rank_auc/null_sd"])
    assert mine.metrics["ulira"] == pytest.approx(50, abs=6)
    assert mine.metrics["rmia/auc"] == pytest.approx(0.5, abs=0.06)
    assert line(audit, CEILING).metrics["rmia/auc"] > 0.8


def test_a_leak_is_distinguished_and_found_by_every_attack():
    mine = line(judged(2.0), "mine")
    assert mine.verdict.startswith("distinguishable from retraining (p = 0.0005; rank AUC 0.9")
    for name, least in (("rank_auc", 0.85), ("ulira", 75), ("ulira/references", 75), ("rmia/auc", 0.75), ("rmia1/auc", 0.7)):
        assert mine.metrics[name] > least, name
    low, high = (mine.metrics[f"rank_auc/{end}"] for end in ("low", "high"))
    assert 0 < mine.metrics["rank_auc"] - low == pytest.approx(high - mine.metrics["rank_auc"])


def test_only_the_samples_that_leak_are_told_apart():
    audit = judged(2.0, half=True)
    assert line(audit, "mine", "first half").verdict.startswith("distinguishable")
    assert line(audit, "mine", "second half").verdict.startswith("not distinguished")
    exposed = audit.exposed["mine"]
    assert len(exposed) == 10
    assert all(int(sample.key.removeprefix("key")) < 20 for sample in exposed[:8])
    assert [s.rank_auc for s in exposed] == sorted((s.rank_auc for s in exposed), reverse=True)


def test_p_values_of_strata_are_corrected_for_their_number_and_that_of_all_samples_is_not():
    whole, *strata = (line(judged(), "mine", s.name).metrics for s in STRATA)
    assert whole["rank_auc/p_holm"] == whole["rank_auc/p"]
    assert all(metrics["rank_auc/p_holm"] >= metrics["rank_auc/p"] for metrics in strata)
    smallest = min(strata, key=lambda metrics: metrics["rank_auc/p"])
    assert smallest["rank_auc/p_holm"] == pytest.approx(min(1, 3 * smallest["rank_auc/p"]))


def many_classes(count=101):
    """A forget set of so many classes, and an audit of a method that did nothing."""
    strata = [STRATA[0], *(Stratum(f"class {i}", "forget", HALF.roll(i)) for i in range(count))]
    contenders = [Contender("mine", "method", group(8, 3.0, seed=3)), Contender(CEILING, "ceiling", group(8, 3.0, seed=4))]
    return Judge(group(8, seed=1), strata).audit("r", contenders)


def test_an_audit_of_many_classes_sees_what_leaks():
    audit = many_classes()
    assert {found.verdict.split(" (")[0] for found in audit.lines if found.role == "method"} == {
        "distinguishable from retraining"
    }
    # All samples, and the ceiling, are tested as ever.
    assert all(line(audit, name).metrics["rank_auc/p"] == pytest.approx(1 / 2000) for name in ("mine", CEILING))


def test_where_permutations_are_too_few_they_are_named_and_not_the_models(monkeypatch):
    monkeypatch.setattr("lightning_unlearn.audit.judging.permutations_for", lambda tests: 1999)
    audit = many_classes()
    assert line(audit, "mine").verdict.startswith("distinguishable")
    assert line(audit, "mine", "class 0").verdict.endswith("(smallest detectable shift: none, there are too few permutations)")
    few = Judge(group(3, seed=1), STRATA[:1]).audit("r", [Contender("mine", "method", group(3, seed=3))])
    assert line(few, "mine").verdict.endswith("(smallest detectable shift: none, there are too few models)")


def test_a_few_points_of_ulira_are_not_called_a_leak():
    assert "exactly retrained models read 53 to 54 % on digits" in judged().notes[0]
    assert "on the lines of zero and ceiling against references that unlearned nothing" in judged().notes[0]


def test_an_audit_that_sees_what_is_not_there_is_void():
    audit = judged(zero=1.5)
    assert "never saw the forgotten samples are told apart" in audit.void[0]
    assert line(audit, "mine").verdict == "void: the audit's controls failed"


def test_an_audit_that_does_not_see_the_originals_is_void():
    audit = judged(ceiling=0.0)
    assert "are not told from references" in audit.void[0]
    assert "not told apart" in audit.controls[1]


def test_too_few_models_to_see_anything_are_void():
    audit = judged(models=4)
    assert "4 models are too few" in audit.void[0]


@pytest.mark.parametrize(("models", "least"), [(3, "0.1"), (4, "0.029"), (5, "")])
def test_so_few_models_that_the_zero_cannot_fail_are_not_said_to_pass(models, least):
    references, zero = group(models, seed=1), Contender(ZERO, "zero", group(models, 100.0, seed=2))
    audit = Judge(references, STRATA[:1]).audit("r", [zero])
    if least:
        assert "too few models to check" in audit.controls[0]
        assert f"{models} against {models} give no p below {least}" in audit.controls[0]
        assert (audit.void, audit.unchecked) == ([], 2)
    else:
        assert "are told apart" in audit.void[0]
        assert audit.unchecked == 1


def test_controls_that_were_not_run_are_named():
    audit = Judge(group(8, seed=1), STRATA).audit("r", [Contender("mine", "method", group(8, seed=2))])
    assert not audit.void
    assert [text.split(":")[0] for text in audit.controls] == ["No held-out references", "No originals"]
    assert audit.unchecked == 2
    assert "ulira" not in line(audit, "mine").metrics
    assert not audit.exposed


def test_an_exact_method_is_called_so_even_where_it_is_told_apart():
    assert line(judged(2.0, exact=True), "mine").verdict == "exact by construction"


def test_the_benchmark_tier_adds_distances_beside_their_zero():
    audit = judged(2.0, benchmark=True)
    mine, zero, ceiling = (line(audit, name).metrics for name in ("mine", ZERO, CEILING))
    assert zero["klom/median"] < mine["klom/median"] < ceiling["klom/median"]
    assert zero["f"] > mine["f"] > ceiling["f"]
    for found in (mine, zero, line(audit, "mine", "first half").metrics):
        assert found["f/of_null"] == pytest.approx(found["f"] / found["f/null"])
    assert mine["klom/median"] == pytest.approx(float(klom(*groups(2.0)).quantile(0.5)))
    assert any("12 models a side" in note for note in audit.notes)
    assert sum(audit.kloms["mine"].counts) == sum(audit.kloms["mine"].null) == SIZES["forget"]
    assert "klom/median" not in line(judged(), "mine").metrics


def test_every_distance_has_its_interval_and_its_null():
    audit = judged(2.0, benchmark=True)
    mine, zero = (line(audit, name).metrics for name in ("mine", ZERO))
    names = ("klom/median", "klom/p95", "klom/retain_p95", "klom/test_p95", "f", "f/of_null", "f/final")
    for name in names:
        assert mine[f"{name}/low"] < mine[name] < mine[f"{name}/high"], name
        assert mine[f"{name}/null_sd"] > 0, name
    for name in ("klom/median", "klom/p95", "f"):
        sign = -1 if name == "f" else 1
        # Told from its null as the method is, and near it as two groups of references are.
        assert sign * (mine[name] - mine[f"{name}/null"]) > 3 * mine[f"{name}/null_sd"], name
        assert zero[name] == pytest.approx(zero[f"{name}/null"], abs=4 * zero[f"{name}/null_sd"]), name
        assert (mine[f"{name}/p"], zero[f"{name}/p"] > 0.02) == (0.005, True), name
    assert mine["f/of_null/null"] == 1
    assert mine["f/of_null/high"] == pytest.approx(mine["f/high"] / mine["f/null"])
    # Strata have nulls, and like all their figures no intervals.
    half = line(audit, "mine", "first half").metrics
    assert {"klom/median/null", "f/null"} <= half.keys()
    assert "klom/median/low" not in half


@pytest.mark.parametrize(("p", "verdict"), [(0.05, "distinguishable"), (0.0501, "not distinguished")])
def test_the_boundary_is_five_percent_itself(p, verdict, monkeypatch):
    monkeypatch.setattr("lightning_unlearn.audit.judging.holm", lambda values: [p] * len(values))
    assert line(judged.__wrapped__(), "mine", "first half").verdict.startswith(verdict)


def test_retained_samples_which_references_saw_are_not_attacked_as_if_they_had_not():
    mine = line(judged(knows_retained=True), "mine", "retained").metrics
    assert mine["rank_auc"] > 0.8
    assert not {name for name in mine if name.startswith("rmia") or name == "ulira"}


def test_relearned_models_are_compared_with_what_they_say_themselves():
    worse = group(12, seed=3)
    worse = Answers({part: margins - 1.5 for part, margins in worse.margins.items()}, worse.correct, {})
    mine = Contender("mine", "method", worse.with_parts(relearned(12, seed=5)))
    references = group(12, seed=1).with_parts(relearned(12, seed=6))
    audit = Judge(references, [STRATA[0], Stratum("relearned", "forget/relearned", EVERY)]).audit("r", [mine])
    for name in ("rmia/auc", "rmia1/auc"):
        assert line(audit, "mine", "relearned").metrics[name] == pytest.approx(0.5, abs=0.06), name


def test_another_group_of_references_can_be_compared_with():
    references = group(12, seed=1)
    contender = Contender(ZERO, "zero", references[6:], against=references[:6])
    zero = line(Judge(references, STRATA).audit("r", [contender]), ZERO)
    assert zero.models == 6
    assert zero.metrics["rank_auc/null"] > 0.6


def test_f_of_a_perfect_unlearner_is_that_of_its_null_whatever_the_zero_has_of_models():
    references = group(12, seed=1)
    zero = Contender(ZERO, "zero", references[6:], against=references[:6])
    audit = Judge(references, STRATA[:1], True).audit("r", [zero, Contender("mine", "method", group(12, seed=2))])
    mine, halves = line(audit, "mine").metrics, line(audit, ZERO).metrics
    assert mine["f"] / halves["f"] < 0.75
    for found in (mine, halves):
        assert found["f/of_null"] == pytest.approx(1, abs=0.15)


def test_curves_and_histograms_count_every_sample():
    audit = judged()
    assert sum(audit.rank_aucs["mine"].counts) == SIZES["forget"]
    curve = audit.rocs["mine"]
    assert curve["fpr"] == sorted(curve["fpr"])
    assert curve["tpr"] == sorted(curve["tpr"])
    assert (curve["fpr"][-1], curve["tpr"][-1]) == (1.0, 1.0)
    assert all(math.isfinite(value) for found in audit.lines for value in found.metrics.values())


def test_the_same_answers_give_the_same_audit():
    assert judged.__wrapped__() == judged()


def test_where_whole_classes_are_forgotten_test_figures_are_of_the_others():
    stays = torch.arange(SIZES["test"]) < 45
    references, mine = group(12, seed=1), group(12, seed=2)
    mine.margins["test"][:, ~stays] -= 9
    mine.correct["test"][:, ~stays] = False

    def of(remaining):
        audit = Judge(references, STRATA[:1], True, remaining=remaining).audit("r", [Contender("mine", "method", mine)])
        return line(audit, "mine").metrics

    found, every = of(stays), of(None)
    assert found["test/acc"] == pytest.approx(100 * float(mine.correct["test"][:, stays].double().mean()))
    assert (found["test_forgotten/acc"], "test_forgotten/acc" in every) == (0, False)
    expected = klom(mine.margins["test"][:, stays], references.margins["test"][:, stays]).quantile(0.95)
    assert found["klom/test_p95"] == pytest.approx(float(expected))
    assert found["klom/test_p95"] < every["klom/test_p95"]
    ratios = [float((mine.correct[p] if p == "retain" else mine.correct[p][:, stays]).double().mean())
              / float((references.correct[p] if p == "retain" else references.correct[p][:, stays]).double().mean())
              for p in ("retain", "test")]  # fmt: skip
    assert found["f/final"] == pytest.approx(found["f"] * ratios[0] * ratios[1])
    assert found["f/final"] > every["f/final"]
