"""Errors inside a user's own stage: file, line and what the stage is given, in place of a bare message."""

import pytest

from lightning_unlearn.cli import main
from tests.cli.conftest import UNLEARN
from tests.cli.test_errors import refused

STAGES = """\
from lightning_unlearn.stages import UnlearningStage


class Shapes(UnlearningStage):
    view = "both"

    def objective(self, batch):
        forget, retain = self.classifier(batch["forget"].input), self.classifier(batch["retain"].input)
        return (forget - retain).mean()


class Pairs(UnlearningStage):
    view = "retain"

    def objective(self, batch):
        x, y = batch
        return x.mean()


class Helped(UnlearningStage):
    view = "retain"

    def objective(self, pictures):
        return part(pictures)


def part(batch):
    return batch["forget"]
"""


@pytest.mark.parametrize(
    ("stage", "line", "place", "told"),
    [
        ("Shapes", 9, "objective", ("RuntimeError: The size of tensor", '["forget"] of 32 samples and batch["retain"] of 57')),
        ("Pairs", 16, "objective", ("ValueError: too many values", "take batch.input and batch.target; here batch.input is (")),
        ("Helped", 28, "part", ("TypeError: tuple indices", "take pictures.input and pictures.target")),
    ],
)
def test_an_error_in_an_own_stage_says_where_and_what_it_is_given(work, capsys, monkeypatch, stage, line, place, told):
    (work / "own_broken.py").write_text(STAGES)
    (work / "broken.yaml").write_text(f"stages:\n- class_path: own_broken.{stage}\n")
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert main([*UNLEARN[:3], "-c", "broken.yaml", *UNLEARN[5:]]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"own_broken.py, line {line}, in {place}: " in error
    for words in told:
        assert words in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mine(FineTune:\n    pass\n", "line 3: SyntaxError: invalid syntax."),
        ("class Mine(FineTune):\n    x = nothing\n", "line 4: NameError: name 'nothing' is not defined."),
        ("from lightning_unlearn.stages import FineTun\n", "line 3: ImportError: cannot import name 'FineTun' .*"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_config_that_names_it(work, capsys, monkeypatch, text, said):
    (work / "own_bad.py").write_text(f"from lightning_unlearn.stages import FineTune\n\n{text}")
    (work / "bad.yaml").write_text("stages:\n- class_path: own_bad.Mine\n")
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    message = rf"^error: own_bad.Mine cannot be imported: /.*own_bad.py, {said}"
    refused(capsys, [*UNLEARN[:3], "-c", "bad.yaml", *UNLEARN[5:]], rf"{message} \(bad.yaml, line 2\)$", work)


def test_a_broken_module_of_a_network_and_of_a_benchmarks_method(work, capsys, monkeypatch):
    (work / "own_bad.py").write_text("class Mine(:\n")
    (work / "bad.yaml").write_text("stages:\n- class_path: own_bad.Mine\n")
    monkeypatch.syspath_prepend(work)
    call = ["benchmark", "-c", "base.yaml", "--trainer.max_epochs", "1", "--methods", "bad.yaml", *UNLEARN[9:]]
    said = "cannot be imported: /.*own_bad.py, line 1: SyntaxError: invalid syntax.$"
    refused(capsys, call, f"^error: own_bad.Mine {said}", work)
    refused(capsys, [*UNLEARN, "--model.network", "own_bad.Net"], f"^error: own_bad {said}", work)
