import json

import pytest
from helpers import imported, untrained

from lightning_unlearn.benchmark.comparison import plan, reference_seeds
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.exceptions import ChainError, ConfigError, DataError
from lightning_unlearn.functional.anatomy import layer_weights

DECAY = "stages:\n- class_path: NormDecay\n  init_args: {factor: 0.5}\n"
TUNE = "stages:\n- class_path: FineTune\n  init_args: {max_epochs: 1, batch_size: 64}\n"
BREAKS = "stages:\n- class_path: MaskLearning\n  init_args: {max_epochs: 1}\n"


@pytest.fixture
def run(make_data, make_trainer, tmp_path):
    def run(methods, forget_batch_size=None, **kwargs):
        paths = []
        for name, text in methods.items():
            (tmp_path / f"{name}.yaml").write_text(text)
            paths.append(str(tmp_path / f"{name}.yaml"))
        where = {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank")}
        data = make_data(forget_batch_size=forget_batch_size)
        trainer = make_trainer(max_epochs=2)
        return trainer.benchmark(untrained(), data, paths, **where, **{"relearn_epochs": 0, **kwargs})

    return run


def written(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".json", ".ckpt")}


def cells(report):
    # As text, in which NaN equals itself.
    return {(r.method, r.request, r.seed): str(r.metrics) for r in report.rows if r.role == "method"}


def test_the_second_run_runs_no_cell(run, tmp_path):
    first = run({"decay": DECAY, "tune": TUNE})
    assert sorted(r.role for r in first.rows) == ["method", "method", "original", "reference", "reference"]
    assert sum(path.suffix == ".json" for path in (tmp_path / "out" / "cells").iterdir()) == 3
    assert len(list((tmp_path / "bank").glob("*/weights.ckpt"))) == 3
    assert next(iter(first.levels.values()))
    cells_before = written(tmp_path / "out" / "cells")
    bank_before = written(tmp_path / "bank")
    again = run({"decay": DECAY, "tune": TUNE})
    assert written(tmp_path / "out" / "cells") == cells_before
    assert written(tmp_path / "bank") == bank_before
    assert cells(again) == cells(first)
    assert again.levels == first.levels


def test_only_what_is_new_runs(run, tmp_path):
    first = run({"decay": DECAY})
    before = written(tmp_path / "out" / "cells")
    more = run({"decay": DECAY, "tune": TUNE})
    after = written(tmp_path / "out" / "cells")
    decays = {name: time for name, time in before.items() if "decay" in name.rpartition("/")[2]}
    assert decays
    assert decays.items() <= after.items()
    assert cells(first).items() <= cells(more).items()
    changed = run({"decay": DECAY.replace("0.5", "0.25"), "tune": TUNE})
    assert len(cells(changed)) == 2
    assert cells(changed) != cells(more)


def test_the_size_of_forget_batches_counts_where_a_stage_has_none(run, tmp_path):
    # Bounded, so that no rate breaks the network.
    ascent = "stages:\n- {class_path: KLToUniform, init_args: {max_epochs: 1}}\n"
    reports = [run({"ascent": ascent}, forget_batch_size=size) for size in (None, 3)]
    assert len(list((tmp_path / "bank").glob("*/weights.ckpt"))) == 3
    assert sum(path.name.startswith("ascent") for path in (tmp_path / "out" / "cells").iterdir()) == 2
    assert cells(reports[0]) != cells(reports[1])


def test_seeds_draws_and_rules_make_cells(run, tmp_path):
    report = run({"decay": DECAY}, seeds=[0, 10], draws=[0], rules=[RandomFraction(0.1), WholeClasses([2])], references=1)
    assert len(cells(report)) == 4
    assert len(report.requests) == 2
    # Two originals for all forget sets, one reference for each of them.
    assert len(list((tmp_path / "bank").glob("*/weights.ckpt"))) == 4
    assert not report.levels  # one reference has nothing to differ from


def test_a_method_that_breaks_is_listed_and_the_others_go_on(run):
    report = run({"breaks": BREAKS, "decay": DECAY}, references=1)
    broken, fine = (next(r for r in report.rows if r.method == name) for name in ("breaks", "decay"))
    assert broken.notes[0].startswith("failed: MaskLearning: 100.0% of the mask is on")
    assert fine.metrics["distance"] > 0


def test_a_stage_that_raises_torchs_own_error_ends_no_benchmark(run, tmp_path, monkeypatch):
    stage = "from lightning_unlearn.stages import UnlearningStage\nclass Full(UnlearningStage):\n    view = 'retain'\n"
    imported(
        tmp_path,
        "full_stage",
        stage + "    def objective(self, batch):\n        raise RuntimeError('out of memory')\n",
        monkeypatch,
    )
    report = run(
        {"full": "stages:\n- {class_path: full_stage.Full, init_args: {max_epochs: 1}}\n", "decay": DECAY}, references=1
    )
    broken, fine = (next(r for r in report.rows if r.method == name) for name in ("full", "decay"))
    assert broken.notes == ["failed: out of memory"]
    assert fine.metrics["distance"] > 0


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="0 methods"):
        run({})
    with pytest.raises(ConfigError, match="0 seeds"):
        run({"decay": DECAY}, seeds=[])
    with pytest.raises(ConfigError, match="10 references; needed: at most 9 for each forget set, or two sets would share"):
        run({"decay": DECAY}, references=10)
    with pytest.raises(ChainError, match="needs the artifact 'mask'"):
        run({"decay": DECAY.replace("factor: 0.5", "use_mask: true")})
    with pytest.raises(DataError, match="Two forget sets have one name"):
        run({"decay": DECAY}, rules=[RandomFraction(0.1), RandomFraction(0.1)])
    assert not (tmp_path / "bank").exists()


def test_no_two_models_share_a_seed(make_data, tmp_path):
    (tmp_path / "decay.yaml").write_text(DECAY)
    sets = plan(make_data(), [str(tmp_path / "decay.yaml")], [0, 10], [0, 1, 2], [], 9)[1]
    seeds = [seed for of in sets for seed in reference_seeds(of, 9)]
    assert len({*seeds, 0, 10}) == 3 * 9 + 2


def test_the_report_is_written(run, tmp_path):
    run({"decay": DECAY}, references=1)
    assert any("rows" in json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json"))


def test_a_strategy_that_does_not_fit_is_refused_before_anything_is_computed(run, tmp_path, make_data):
    (tmp_path / "decay.yaml").write_text(DECAY)
    with pytest.raises(ChainError, match="Strategy 'fsdp' cannot be used"):
        plan(make_data(), [str(tmp_path / "decay.yaml")], [0], [0], [], 2, "fsdp")
    assert not (tmp_path / "bank").exists()


SPARSE = "stages:\n- class_path: MagnitudePrune\n  init_args: {sparsity: 0.8}\n"


def pruned_of(model):
    parameters = dict(model.named_parameters())
    return [parameters[name] for name in layer_weights(model, list(parameters), head=False)]


def test_originals_and_references_are_prepared_and_methods_keep_their_zeros(run, tmp_path, monkeypatch):
    zeros = []

    def spy(fresh, model, data, stages, *rest):
        done = run_chain(fresh, model, data, stages, *rest)
        zeros.append(sum(int((p == 0).sum()) for p in pruned_of(model)))
        return done

    monkeypatch.setattr("lightning_unlearn.benchmark.run.run_chain", spy)
    (tmp_path / "sparse.yaml").write_text(SPARSE)
    dense = run({"tune": TUNE})
    sparse = run({"tune": TUNE}, prepare=str(tmp_path / "sparse.yaml"))
    assert zeros[0] == 0
    assert zeros[1] == round(0.8 * sum(p.numel() for p in pruned_of(untrained())))
    assert len(list((tmp_path / "bank").glob("*/weights.ckpt"))) == 6
    assert cells(dense) != cells(sparse)
    said = [any("went through sparse after their training" in warning for warning in of.warnings) for of in (dense, sparse)]
    assert said == [False, True]
    accuracy = [{(r.role, r.seed): r.metrics["retain/acc"] for r in of.rows} for of in (dense, sparse)]
    # Two epochs teach little: one of the references may be right as often without these weights.
    assert sum(accuracy[0][row] != accuracy[1][row] for row in accuracy[0]) >= 3


@pytest.mark.parametrize("with_", [{"tier": "audit"}, {"tune": 2}, {"goal": "repair"}])
def test_what_a_preparation_does_not_go_with(run, with_, tmp_path):
    with pytest.raises(ConfigError, match="prepare is for the tier `screen`"):
        run({"decay": DECAY}, prepare="prune_95", **with_)
    with pytest.raises(ConfigError, match="No config 'prepare/prune_9'"):
        run({"decay": DECAY}, prepare="prune_9")
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("tier", ["screen", "audit"])
def test_originals_that_do_not_know_their_data_are_named(make_data, make_trainer, tmp_path, tier, caplog):
    (tmp_path / "decay.yaml").write_text(DECAY)
    where = {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank"), "relearn_epochs": 0, "tier": tier}
    where |= {"models": 3, "processes": 1, "int8": False} if tier == "audit" else {"seeds": [0, 10], "references": 1}
    for _ in range(2):  # also where all cells are finished
        caplog.clear()
        report = make_trainer(max_epochs=1).benchmark(untrained(), make_data(), [str(tmp_path / "decay.yaml")], **where)
        [said] = [warning for warning in report.warnings if "which it was trained on" in warning]
        assert "of the retained samples" in said
        assert said.endswith("That is so of 2 of 2 originals.") == (tier == "screen")
        assert said in caplog.text
