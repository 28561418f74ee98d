"""Help that a person can read, at once."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_unlearn import __version__
from lightning_unlearn.cli import main
from lightning_unlearn.cli.commands import COMMANDS
from lightning_unlearn.cli.configs import method_names
from lightning_unlearn.cli.job import OWN_WEIGHTS
from tests.cli.conftest import start

LAZY = ("torch", "lightning", "numpy", "matplotlib", "jsonargparse")


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command, summary in COMMANDS.items():
        assert command in text
        assert summary in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("arguments", [["--help"], ["benchmark", "--help"], ["report", "--help"]])
def test_a_reader_that_stops_reading_is_no_error(arguments):
    command = [sys.executable, "-m", "lightning_unlearn", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lightning_unlearn", "benchmark", "--help"]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.stderr.startswith("error: ")
    assert "No space left on device" in process.stderr
    assert process.stderr.count("\n") == 1
    assert process.returncode == 2


@pytest.mark.parametrize("method", [None, *method_names()])
def test_help_of_unlearn_fits_on_two_screens_and_names_the_stages(capsys, method):
    assert main(["unlearn", "--help", *([] if method is None else ["-c", f"method/{method}"])]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100
    for word in ("--resume", "--help.all", "checkpoint = null", "batch_size = 128", "network = resnet18", "accelerator"):
        assert word in text
    if method is None:
        assert all(name in text for name in method_names())
    else:
        assert "stages[0]" in text


def test_help_shows_what_reaches_a_stage_through_its_base_classes(capsys):
    assert main(["unlearn", "--help", "-c", "method/selective_forgetting"]) == 0
    text = capsys.readouterr().out
    for word in ("penalty = 1e-05", "max_epochs = 20", "max_steps = null", "Weight of the L1 norm", "factor = 0.3"):
        assert word in text


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "unlearn"])
def test_help_of_the_other_commands(capsys, command):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: lightning-unlearn " + command)
    assert len(text.splitlines()) <= 120
    assert max(map(len, text.splitlines())) <= 100


def test_help_all_is_complete(capsys):
    assert main(["fit", "--help.all"]) == 0
    assert "--trainer.reload_dataloaders_every_n_epochs" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["report", "--help"], ["report", "nowhere"]])
def test_quick_answers_take_no_torch_and_little_time(arguments, tmp_path):
    code = (
        f"import sys, time\nsys.argv = ['lightning-unlearn', *{arguments}]\n"
        "from lightning_unlearn.cli import main\nmain()\n"
        f"print('loaded:', [name for name in {LAZY} if name in sys.modules])\n"
        "print('seconds:', time.process_time())\n"
    )
    import subprocess

    from tests.cli.conftest import REPOSITORY

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert "loaded: []" in done.stdout
    assert float(done.stdout.rsplit("seconds:", 1)[1]) <= 1.5


def test_python_m_is_the_same_command(tmp_path):
    process = start("--version", folder=tmp_path)
    assert process.communicate(timeout=60)[0].strip() == __version__
    assert process.returncode == 0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0


@pytest.mark.parametrize("typed", [["--data.dataset", "ImageFolder"], ["--data.dataset=lightning_unlearn.data.ImageFolder"]])
def test_help_shows_the_arguments_of_the_data_set_and_the_rule(capsys, typed):
    assert main(["unlearn", "-c", "data/digits", "-c", "method/imitate_unseen", *typed, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 120
    assert "ImageFolder (as --data.dataset.NAME)" in text
    assert "channels = 3" in text
    assert "RandomFraction (as --data.forget.NAME)" in text


def test_help_of_an_own_stage_shows_its_arguments_without_a_docstring(empty, capsys):
    (empty / "own_help.py").write_text(
        "from lightning_unlearn.stages import UnlearningStage\n\n\nclass Bounded(UnlearningStage):\n    view = 'both'\n\n"
        "    def __init__(self, retain_weight: float = 1.5, **kwargs):\n        super().__init__(**kwargs)\n"
    )
    (empty / "own.yaml").write_text("stages:\n- {class_path: own_help.Bounded, init_args: {max_epochs: 5}}\n- own_help.No\n")
    for option in ("--help", "--help.all"):
        assert main(["unlearn", "-c", "base.yaml", "-c", "own.yaml", option]) == 0
        text = capsys.readouterr().out
        assert "stages[0]: Bounded:\n  retain_weight = 1.5\n  max_epochs = 5 " in text
        assert "stages[1]: own_help.No:\n  there is no such stage" in text
        assert "a stage's values are set in own.yaml" in text


def test_help_shows_the_values_in_force_and_how_to_set_those_of_a_stage(empty, capsys):
    typed = ["--data.unseen", "50", "--data.forget=RandomFraction", "--data.forget.fraction", "0.2", "--trainer.devices=2"]
    assert main(["unlearn", "-c", "base.yaml", "-c", "model/mlp", "-c", "method/imitate_unseen", *typed, "--help"]) == 0
    text = capsys.readouterr().out
    of_configs = (
        "passes = 13 ",
        "correction = 0.5 ",
        "min_forget_batches = 5 ",
        "batch_size = 96 ",
        "train_size = 600 ",
        "network = MLP ",
    )
    of_call = ("unseen = 50 ", "fraction = 0.2 ", "devices = 2 ", "accelerator = cpu ")
    for word in (*of_configs, *of_call, "estimators = [Copies, Copies", "optimizer = torch.optim.SGD "):
        assert word in text, word
    assert "a stage's values are set in a copy of the method's file: cp" in text
    assert "imitate_unseen.yaml mine.yaml, then -c mine.yaml" in " ".join(text.split())


def test_help_of_a_benchmark_says_where_it_goes_once(capsys):
    assert main(["benchmark", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.count("--output") == 1
    assert "\n  output =" not in text
    assert "go to runs/NAME;" in text


def test_help_of_a_data_set_names_the_program(capsys):
    assert main(["unlearn", "-c", "data/digits", "--data.dataset.help", "ImageFolder"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: lightning-unlearn")
    assert "--data.dataset.image_size" in text


def test_help_names_the_word_for_no_checkpoint_that_the_command_takes(capsys):
    assert main(["unlearn", "--help"]) == 0
    assert f"`{OWN_WEIGHTS}` on the command line" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["unlearn", "benchmark"])
def test_lists_of_names_are_shortened_before_the_texts_of_arguments(capsys, command):
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("in the two-part views, over all ranks; None: half of `batch_size`", "memories come back; 0: left out",
                  "chooses what the report judges by"):  # fmt: skip
        assert words in text, words
    assert ("benchmark/digits" in text) == (command == "benchmark")
