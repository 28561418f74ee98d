"""Errors inside a user's own stage: file, line and what the stage is given, in place of a bare message."""

import pytest

from lightning_unlearn.cli import main
from tests.cli.conftest import UNLEARN

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
