"""Small audits from end to end: a tiny network, four models a side, two epochs."""

import os

import pytest
from helpers import sgd, untrained

from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.audit.cells import Cells
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.exceptions import ConfigError, RunError
from lightning_unlearn.report.audit_schema import WHOLE
from lightning_unlearn.report.schema import Report

TUNE = "stages:\n- class_path: FineTune\n  init_args: {max_epochs: 1, batch_size: 64}\n"
DECAY = "stages:\n- class_path: NormDecay\n  init_args: {factor: 0.5}\n"
CLASS = """stages:
- class_path: ErrorMaximisingNoise
  init_args: {steps: 2}
- class_path: NormDecay
  init_args: {factor: 0.5}
"""
BREAKS = "stages:\n- class_path: MaskLearning\n  init_args: {max_epochs: 1}\n"


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Models that all tests start from: each is trained once."""
    return tmp_path_factory.mktemp("bank")


@pytest.fixture
def run(make_data, make_trainer, tmp_path, bank):
    def run(methods, **kwargs):
        paths = []
        for name, text in methods.items():
            (tmp_path / f"{name}.yaml").write_text(text)
            paths.append(str(tmp_path / f"{name}.yaml"))
        model = Classifier("MLP", 10, 1, image_size=8, network_args={"hidden": [16]}, optimizer=sgd(0.1, momentum=0.9))
        arguments = {"models": 3, "processes": 1, "int8": False, "tier": "audit", "relearn_epochs": 0, **kwargs}
        where = {"output": str(tmp_path / "out"), "bank": str(bank)}
        return make_trainer(max_epochs=2).benchmark(model, make_data(unseen=30), paths, **{**where, **arguments})

    return run


def rows(report, stratum=WHOLE):
    return {line.method: line for line in report.audits[0].lines if line.stratum == stratum}


def test_a_whole_audit(run, tmp_path, bank):
    report = run({"tune": TUNE, "decay": DECAY}, models=4, relearn_epochs=1, int8=True)
    assert set(rows(report)) == {"held-out references", "tune", "decay", "original"}
    assert all(line.models == 4 for line in report.audits[0].lines)
    tune = rows(report)["tune"].metrics
    assert {"rank_auc", "ulira", "ulira/references", "rmia/auc", "forget/acc", "test/acc", "cost/share"} <= tune.keys()
    assert tune["cost/share"] == pytest.approx(0.5, abs=0.02)  # one of two epochs
    strata = {line.stratum for line in report.audits[0].lines if line.method == "tune"}
    assert {f"{WHOLE}, int8 weights", f"{WHOLE}, after 1 epochs on retained samples alone", "retained"} <= strata
    assert report.kind == report.tier == "audit"
    # Four models a side can never be told apart with p < 0.001.
    assert report.audits[0].void
    written = Report.load(tmp_path / "out")
    assert written.to_json() == report.to_json()
    assert len(list(bank.glob("*/weights.ckpt"))) == 12
    assert [path.suffix for path in (tmp_path / "out" / "cells").iterdir()] == [".json"]


def test_who_trained_on_unseen_samples_is_not_compared_with_them(run):
    text = "stages:\n- class_path: DistilOriginal\n  init_args: {part: PART, max_epochs: 1, batch_size: 64}\n"
    report = run({part: text.replace("PART", part) for part in ("unseen", "retain")})
    # Against forgotten samples stand other models.
    assert "rmia/auc" in rows(report)["unseen"].metrics


def test_what_is_finished_is_not_run_again(run, tmp_path, monkeypatch):
    first = run({"decay": DECAY}, keep_outputs=True)
    assert len(list((tmp_path / "out" / "cells").glob("*.pt"))) == 5
    monkeypatch.setattr(Cells, "run", lambda *_: pytest.fail("a finished cell was run again"))
    assert run({"decay": DECAY}).audits == first.audits
    # Judged anew from kept answers.
    for record in (tmp_path / "out" / "cells").glob("audit-*.json"):
        record.unlink()
    assert run({"decay": DECAY}, keep_outputs=True).audits == first.audits


def test_a_killed_audit_goes_on(run, tmp_path, monkeypatch):
    calls = []
    original = Cells.run

    def dies(self, cell):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(cell.name)
        original(self, cell)

    monkeypatch.setattr(Cells, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        run({"decay": DECAY})
    assert len(list((tmp_path / "out" / "cells").glob("*.pt"))) == 4
    monkeypatch.setattr(Cells, "run", lambda self, cell: (calls.append(cell.name), original(self, cell))[1])
    run({"decay": DECAY})
    assert len(calls) == len(set(calls)) == 5


def test_shadows_never_saw_the_forgotten_samples(run, monkeypatch):
    seen = []
    original = Cells._without_forgotten

    def spied(self, seed):
        other = original(self, seed)
        seen.append((set(self.data.part("forget")[1].tolist()), other))
        return other

    monkeypatch.setattr(Cells, "_without_forgotten", spied)
    run({"decay": DECAY})
    forgotten, other = seen[-1]
    parts = {name: set(other.part(name)[1].tolist()) for name in ("forget", "retain", "unseen")}
    assert len(parts["forget"]) == len(forgotten)
    assert not forgotten & (parts["forget"] | parts["retain"] | parts["unseen"])
    assert len(parts["unseen"]) == 30


def test_a_method_that_breaks_is_noted_and_the_others_are_judged(run):
    report = run({"breaks": BREAKS, "decay": DECAY})
    assert "breaks" not in rows(report)
    assert "decay" in rows(report)
    assert any(note.startswith("breaks failed: MaskLearning: 100.0% of the mask is on") for note in report.audits[0].notes)


def test_after_a_failure_the_same_command_runs_only_what_failed(run, tmp_path, monkeypatch):
    original, runs = Cells.run, []

    def broken(self, cell):
        runs.append(cell.name)
        if cell.method == "decay" and cell.group == "unlearned" and len(runs) < 8:
            raise RunError("not now")
        original(self, cell)

    monkeypatch.setattr(Cells, "run", broken)
    first = run({"tune": TUNE, "decay": DECAY})
    assert len(runs) == 7
    assert "decay" not in rows(first)
    second = run({"tune": TUNE, "decay": DECAY})
    assert runs[7:] == ["decay-0"]
    assert rows(second)["tune"] == rows(first)["tune"]
    assert "decay" in rows(second)
    assert [path.suffix for path in (tmp_path / "out" / "cells").iterdir()] == [".json"]


def attacks(report, method, stratum=WHOLE):
    return {name for name in rows(report, stratum)[method].metrics if name == "ulira" or name.startswith("rmia")}


@pytest.mark.parametrize(
    ("text", "rule", "why"),
    [(CLASS, WholeClasses([2]), "was not drawn at random"), (DECAY, RandomFraction(0.6), "there are only")],
)
def test_nothing_is_compared_with_another_kind_of_forgetting(run, tmp_path, text, rule, why):
    report = run({"mine": text}, rules=[rule], bank=str(tmp_path / "bank"))
    assert {"rank_auc", "ulira/references"} <= rows(report)["mine"].metrics.keys()
    assert not attacks(report, "mine")
    assert "mine" not in report.audits[0].rocs
    assert attacks(report, "original")
    assert ("test_forgotten/acc" in rows(report)["mine"].metrics) == isinstance(rule, WholeClasses)
    assert any(note.startswith("Methods have no U-LiRA") and why in note for note in report.audits[0].notes)


def test_shadows_forget_samples_of_the_same_classes(make_data, fresh, tmp_path):
    data = make_data(forget=RandomFraction(0.2, classes=[3, 5]))
    cells = Cells(fresh, data, Recipe(untrained, 1, {"accelerator": "cpu"}), Bank(tmp_path), tmp_path, 0)
    assert not cells.no_shadows
    samples, index = cells._without_forgotten(7).part("forget")
    assert set(samples.targets[index].tolist()) == {3, 5}
    assert len(index) == len(data.part("forget")[1])


def test_failed_shadows_cost_what_needs_them(run, monkeypatch):
    def fails(self, cell):
        raise RunError("the shadow broke")

    monkeypatch.setattr(Cells, "_shadows", fails)
    report = run({"decay": DECAY}, int8=True)
    assert not attacks(report, "decay")
    assert not attacks(report, "decay", f"{WHOLE}, int8 weights")
    assert "rank_auc" in rows(report)["decay"].metrics
    (note,) = (note for note in report.audits[0].notes if "the shadow broke" in note)
    assert note.startswith("decay has no U-LiRA")


def test_forget_sets_are_audited_one_by_one(run, bank):
    before = len(list(bank.glob("*/weights.ckpt")))
    report = run({"decay": DECAY}, rules=[RandomFraction(0.1), WholeClasses([2])], tier="benchmark")
    assert [found.request for found in report.audits] == ["random 10 %", "class 2"]
    assert report.tier == "benchmark"
    assert "klom/median" in rows(report)["decay"].metrics
    # Originals serve all forget sets, retrained models one.
    assert before in (0, 9, 12)
    assert len(list(bank.glob("*/weights.ckpt"))) == max(before, 9) + 6


def test_several_processes_give_the_same_answers(run, tmp_path):
    run({"decay": DECAY}, keep_outputs=True)
    folder = tmp_path / "out" / "cells"
    alone = {path.name: Answers.load(path) for path in folder.glob("*.pt")}
    for path in folder.iterdir():
        path.unlink()
    os.environ.pop("PL_GLOBAL_SEED", None)
    run({"decay": DECAY}, keep_outputs=True, processes=2)
    for path in folder.glob("*.pt"):
        for part, margins in Answers.load(path).margins.items():
            assert margins.equal(alone[path.name].margins[part]), (path.name, part)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"models": 2}, "models is 2; needed: at least 3"), ({"processes": 0}, "processes is 0; needed: at least 1")],
)
def test_what_cannot_be_audited_is_refused(run, tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        run({"decay": DECAY}, bank=str(tmp_path / "none"), **given)
    assert not (tmp_path / "none").exists()
