"""A class forgotten without data, from the training to the purge."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from lightning_unlearn.cli import main
from lightning_unlearn.data.forget import WholeClasses
from tests.cli.conftest import write_configs

QUIET = ("--relearn_epochs", "0")
CODES = ["-c", "trainer/mnemonic_codes"]
ORIGINAL = "runs/original/1/checkpoints/last.ckpt"
MODEL = ["--model.network", "SmallCNN"]
NO_DATA = ["--data.dataset", "NoData", "--data.dataset.image_size", "8", "--data.dataset.channels", "1"]
FORGET = ["--data.forget", "WholeClasses", "--data.forget.classes", "[3]"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    write_configs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "-c", "base.yaml", *CODES, "--trainer.max_epochs", "1", "--name", "original"]) == 0
        # What came from elsewhere: weights alone.
        Path("got").mkdir()
        shutil.copy(ORIGINAL, "got/model.ckpt")
        call = ["unlearn", *MODEL, *NO_DATA, *FORGET, "-c", "method/mnemonic", "--trainer.accelerator", "cpu"]
        assert main([*call, "--checkpoint", ORIGINAL, "--name", "x"]) == 0
        assert main([*call, "--checkpoint", "got/model.ckpt", "--name", "y"]) == 0
    return folder


@pytest.fixture
def work(done, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_the_error_of_evaluate_names_the_call_that_works(work, capsys):
    assert main(["evaluate", "--run", "runs/x/1", *QUIET]) == 2
    error = capsys.readouterr().err
    assert "NoData has no samples to judge a model by" in error
    call = shlex.split(error.strip().partition("evaluate -c data/... -c model/... ")[2])
    assert call[:4] == ["--checkpoint", "runs/x/1/unlearned.ckpt", "--original", ORIGINAL]
    assert main(["evaluate", "-c", "base.yaml", *QUIET, *call]) == 0
    report = json.loads(Path("runs/evaluate/1/report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["original", "mnemonic"]


def test_data_can_be_given_to_a_run_without(work, capsys):
    """The example rule of a shipped config does not come into it."""
    assert main(["evaluate", "--run", "runs/x/1", "-c", "data/digits", *QUIET]) == 0
    report = json.loads(Path("runs/evaluate/1/report.json").read_text())
    assert report["requests"][0]["rule"] == WholeClasses([3]).describe()
    assert report["requests"][0]["never_trained"] == 0


def test_unseen_samples_do_not_count_as_trained_where_their_share_is_given(work):
    """Without a split of the original nobody knows which they are."""
    call = ["evaluate", "-c", "base.yaml", *QUIET, *FORGET, "--checkpoint", "runs/y/1/unlearned.ckpt"]
    assert main([*call, "--original", ORIGINAL]) == 0
    known = json.loads(Path(ORIGINAL).with_name("split.json").read_text())
    report = json.loads(Path("runs/evaluate/1/report.json").read_text())
    assert report["requests"][0]["of"] == len(known["retain"])
    assert any("no split.json beside the checkpoint names its samples" in text for text in report["warnings"])
    assert main([*call, "--data.unseen", "null"]) == 0
    report = json.loads(Path("runs/evaluate/2/report.json").read_text())
    assert report["requests"][0]["of"] == len(known["retain"]) + len(known["unseen"])
    assert any("is taken to have seen all samples" in text for text in report["warnings"])


def test_purge_finds_the_original(work, capsys):
    assert main(["purge", "runs/x/1"]) == 0
    out, left = capsys.readouterr().out.split("not deleted:")
    assert "the runs before it: 1 class\n" in out
    assert f"{ORIGINAL}: the checkpoint that a request started from" in out
    assert "runs/y/1/unlearned.ckpt" not in out + left


def test_a_class_is_forgotten_once_and_by_the_name_that_it_has(work, capsys):
    call = [
        "unlearn",
        *MODEL,
        "-c",
        "method/mnemonic",
        "--trainer.accelerator",
        "cpu",
        "--checkpoint",
        "runs/x/1/unlearned.ckpt",
    ]
    assert main([*call, *NO_DATA, *FORGET, "--name", "again"]) == 0
    assert "nothing to do: Nothing is left to forget" in capsys.readouterr().out
    assert not Path("runs/again").exists()
    path = Path("runs/x/1/split.json")
    names = [f"kind {label}" for label in range(10)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": names}))
    turned = [*NO_DATA, "--data.dataset.classes", json.dumps(names[::-1]), *FORGET]
    assert main([*call, *turned, "--name", "again"]) == 2
    assert "The classes are not those that the checkpoint was trained with" in capsys.readouterr().err
