"""Audits from the command line: own checkpoints, and calls that are refused before anything runs."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from lightning_unlearn.cli import main
from lightning_unlearn.report.schema import Report

FORGET = ["--data.forget", "RandomFraction", "--data.forget.fraction", "0.1"]
TRAINED = "runs/fit/1/checkpoints/last.ckpt"


_number = itertools.count()


def copies(name, count=3):
    """Nearly equal checkpoints of which nothing says what they were trained on."""
    for i in range(count):
        path = Path(name, str(i), "last.ckpt")
        path.parent.mkdir(parents=True)
        checkpoint = torch.load(TRAINED, weights_only=True)
        for value in checkpoint["state_dict"].values():
            # So little that no answer changes, and yet another model: the same weights twice are refused.
            value.mul_(1 + 1e-6 * (1 + next(_number)))
        torch.save(checkpoint, path)
    return f"{name}/*/last.ckpt"


def evaluate(*arguments):
    return main(["evaluate", "-c", "base.yaml", *FORGET, "--tier", "audit", "--relearn_epochs", "0", *arguments])


def refused(capsys, *words):
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert "Traceback" not in error
    assert not Path("runs/evaluate").exists()
    return True


def test_lists_of_own_checkpoints_are_audited(work, capsys):
    lists = [f"--{name}=['{copies(name)}']" for name in ("unlearned", "originals", "held_out")]
    assert evaluate(*lists, f"--references=['{copies('references')}']") == 0
    (found,) = Report.load("runs/evaluate/1").audits
    assert {line.method for line in found.lines} == {"held-out references", "unlearned", "original"}
    # Copies of one model cannot be told apart, and so the audit says that it sees nothing.
    assert "The originals" in found.void[0]
    assert "void" in capsys.readouterr().out


def test_one_model_twice_is_refused(work, capsys):
    unlearned = copies("unlearned")
    shutil.copy("unlearned/0/last.ckpt", "unlearned/1/last.ckpt")
    assert evaluate(f"--unlearned=['{unlearned}']", f"--references=['{copies('references')}']") == 2
    assert "has the weights of unlearned/0/last.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("--unlearned names 0 checkpoints", "at least 3")),
        (["--unlearned=['none/*.ckpt']"], ("no file fits this pattern",)),
        ([f"--unlearned=['{TRAINED}','{TRAINED}','x']"], ("twice", "another model each time")),
        (["--checkpoint", TRAINED], ("--checkpoint was given", "belongs to the tier screen")),
    ],
)
def test_lists_that_cannot_be_audited(work, capsys, arguments, words):
    assert evaluate(*arguments) == 2
    assert refused(capsys, *words)


def test_a_model_stands_in_one_group(work, capsys):
    pattern = copies("models")
    assert evaluate(f"--unlearned=['{pattern}']", f"--references=['{pattern}']") == 2
    assert "one group for each model" in capsys.readouterr().err


def test_lists_without_the_tier_are_refused(work, capsys):
    call = ["evaluate", "-c", "base.yaml", *FORGET, "--checkpoint", TRAINED, f"--unlearned=['{TRAINED}']"]
    assert main(call) == 2
    assert "Add --tier audit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "2"], ("models is 2", "at least 3")),
        (["--processes", "0"], ("processes is 0",)),
        (["--seeds", "[0]"], ("an audit numbers its models itself",)),
        (["--tier", "thorough"], ("tier",)),
    ],
)
def test_benchmarks_that_cannot_be_audited(work, capsys, arguments, words):
    call = ["benchmark", "-c", "base.yaml", *FORGET, "--methods", "[fine_tune]", "--trainer.max_epochs", "1"]
    assert main([*call, "--tier", "audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not Path("runs/benchmark/config.yaml").exists()
