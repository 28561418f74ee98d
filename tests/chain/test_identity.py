"""What finished work is known by changes with everything that it depends on, and with nothing else."""

from dataclasses import replace

import pytest
from helpers import imported, untrained
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_unlearn.audit.cells import Cell, Cells
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.identity import setup_of
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.chain.settings import settings_of, sources_of
from lightning_unlearn.config.shipped import config_names
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.stages import FineTune
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

STAGE = """from torch.nn.functional import cross_entropy
from lightning_unlearn.stages import UnlearningStage
class Mine(UnlearningStage):
    view = "forget"
    def objective(self, batch):
        return -0.5 * cross_entropy(self.classifier(batch.input), batch.target)
"""
EDITED = STAGE.replace("-0.5", "-0.25")
MINE = "stages:\n- class_path: user_stage.Mine\n  init_args: {max_epochs: 1}\n"


class Watches(Callback):
    def __init__(self, count=1):
        self.count = count


@pytest.fixture
def benchmark(make_data, make_trainer, tmp_path):
    """Runs a method of the user's, and says which cells there are of it and how many other models in the bank."""

    def run(dataset=None, text=MINE, trainer=None, **kwargs):
        (tmp_path / "mine.yaml").write_text(text)
        where = {"output": str(tmp_path / "out"), "bank": str(tmp_path / "bank"), "relearn_epochs": 0, "references": 1}
        given = make_trainer(max_epochs=1, **(trainer or {}))
        report = given.benchmark(untrained(), make_data(dataset), [str(tmp_path / "mine.yaml")], **where, **kwargs)
        row = next(row for row in report.rows if row.role == "method")
        assert not any(note.startswith("failed") for note in row.notes)
        trials = list((tmp_path / "out" / "tuning").glob("*.json"))
        return row.metrics, len(list((tmp_path / "out" / "cells").glob("mine-*"))), len(trials)

    return run


def test_an_edited_stage_is_benchmarked_again(benchmark, tmp_path, monkeypatch):
    imported(tmp_path, "user_stage", STAGE, monkeypatch)
    first = benchmark()
    imported(tmp_path, "user_stage", EDITED, monkeypatch)
    second = benchmark()
    assert (first[1], second[1]) == (1, 2)
    assert first[0]["distance"] > second[0]["distance"] > 0
    imported(tmp_path, "user_stage", STAGE, monkeypatch)
    assert benchmark()[0]["distance"] == first[0]["distance"]


def test_an_edited_stage_is_tuned_again(benchmark, tmp_path, monkeypatch):
    text = MINE + "tune: {stages.0.init_args.max_epochs: [1, 2]}\n"
    imported(tmp_path, "user_stage", STAGE, monkeypatch)
    assert benchmark(text=text, tune=1)[2] == benchmark(text=text, tune=1)[2] == 1
    imported(tmp_path, "user_stage", EDITED, monkeypatch)
    assert benchmark(text=text, tune=1)[2] == 2


def test_another_test_set_and_other_arguments_of_the_trainer_are_other_cells(benchmark, digits, tmp_path, monkeypatch):
    imported(tmp_path, "user_stage", STAGE, monkeypatch)
    whole = benchmark()
    test = replace(digits.test, targets=(digits.test.targets + 1) % 10)
    wrong = benchmark(VisionData("digits", digits.train, test, digits.classes, digits.mean, digits.std))
    assert wrong[1] == 2
    assert wrong[0]["test/acc"] != whole[0]["test/acc"]
    limited = benchmark(trainer={"limit_train_batches": 1})
    assert limited[1] == 3
    again = benchmark(trainer={"limit_train_batches": None, "log_every_n_steps": 1, "devices": 1, "precision": "32-true"})
    assert again[1] == 3
    assert again[0]["distance"] == whole[0]["distance"]


def test_what_reaches_a_stage_is_part_of_a_setup(make_data, make_trainer, tmp_path):
    def setup(**kwargs):
        return setup_of(make_trainer(**kwargs).fresh, make_data())

    usual = setup()
    for harmless in (
        {"logger": CSVLogger(tmp_path), "default_root_dir": str(tmp_path), "num_sanity_val_steps": 0, "max_epochs": 7},
        {"plugins": [LightningEnvironment()]},
        {"plugins": [AtomicCheckpointIO()], "accelerator": "cpu", "devices": 1},
        {"callbacks": [ModelCheckpoint(tmp_path), LearningRateMonitor()]},
    ):
        assert setup(**{"logger": False, **harmless}) == usual
    for name, value in {
        "limit_train_batches": 2,
        "overfit_batches": 1,
        "max_time": "00:00:01:00",
        "fast_dev_run": True,
        "min_steps": 3,
        "gradient_clip_val": 1.0,
        "precision": "64-true",
        "callbacks": [Watches(1)],
    }.items():
        assert setup(**{name: value}) != usual
    counts = [setup(callbacks=[Watches(n)]) for n in (1, 2, 1)]
    assert counts[0] == counts[2] != counts[1]
    assert setup(callbacks=StochasticWeightAveraging(0.1)) == setup(callbacks=[StochasticWeightAveraging(0.1)])


def test_cells_of_an_audit_too(make_data, make_trainer, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(MINE)
    recipe = Recipe(untrained, 1, {"accelerator": "cpu"})

    def path(text=STAGE, **kwargs):
        imported(tmp_path, "user_stage", text, monkeypatch)
        cell = Cell("unlearned", (0,), "mine", load_method(str(tmp_path / "mine.yaml")))
        return Cells(make_trainer(**kwargs).fresh, make_data(), recipe, Bank(tmp_path), tmp_path, 0).path(cell)

    assert path() == path()
    assert len({path(), path(EDITED), path(limit_train_batches=1)}) == 3


def test_shipped_methods_have_no_source_of_a_users():
    for name in config_names("method"):
        assert sources_of(load_method(name)()) == "", name


def test_a_chain_whose_code_has_changed_does_not_go_on(make_data, trained, fresh, tmp_path, monkeypatch):
    def chain(text):
        return [imported(tmp_path, "user_stage", text, monkeypatch).Mine(max_epochs=1), FineTune(max_epochs=1)]

    assert settings_of(chain(STAGE)) == settings_of(chain(STAGE)) != settings_of(chain(EDITED))
    start = {name: value.clone() for name, value in trained.state_dict().items()}
    run_chain(fresh, trained, make_data(), chain(STAGE), tmp_path)
    (tmp_path / "stage1.ckpt").unlink()
    trained.load_state_dict(start)
    with pytest.raises(ConfigError, match="its stages differ"):
        run_chain(fresh, trained, make_data(), chain(EDITED), tmp_path)
    assert len(run_chain(fresh, trained, make_data(), chain(STAGE), tmp_path)) == 2


def test_own_callbacks_and_optimisers_of_a_stage_count(tmp_path, monkeypatch):
    own = "import torch\nclass Own(torch.optim.SGD):\n    def step(self, closure=None):\n        return super().step(closure)\n"

    def hashed(text):
        kind = imported(tmp_path, "user_optimiser", text, monkeypatch).Own
        return sources_of([FineTune(optimizer=lambda params: kind(params, lr=0.1))])

    assert hashed(own) != hashed(own.replace("closure)\n", "None)\n"))
    assert sources_of([FineTune(callbacks=[Watches()])]) != sources_of([FineTune()])
