"""Requests, one after another: a folder of images from which files vanish between them."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_unlearn.cli import main
from lightning_unlearn.data.loaders import BatchMaker
from lightning_unlearn.requests.ledger import entries_in, read_ledger
from lightning_unlearn.weights.checkpoint import read_weights
from tests.cli.conftest import start

CLASSES = ("cat", "dog", "owl")
CONFIG = {
    "data": {
        "dataset": {
            "class_path": "ImageFolder",
            "init_args": {"train": "photos/train", "test": "photos/test", "image_size": 8, "mean": 0.5, "std": 0.5},
        },
        "unseen": 6,
        "batch_size": 16,
        "num_workers": 0,
    },
    "model": {
        "class_path": "Classifier",
        "init_args": {"network": "SmallCNN", "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}},
    },
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2},
}
METHOD = {"stages": [{"class_path": "FineTune", "init_args": {"max_epochs": 1, "cache": False}}]}
QUIET = ("--relearn_epochs", "0")


def write_images(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 5)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8) // 2 + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{part}{i:02d}_{name}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A trained original, and the first request done."""
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images(folder / "photos")
        (folder / "base.yaml").write_text(yaml.safe_dump(CONFIG))
        (folder / "method.yaml").write_text(yaml.safe_dump(METHOD))
        assert main(["fit", "-c", "base.yaml", "--name", "original"]) == 0
        first = split_of("runs/original/1/checkpoints")["retain"][:4]
        request("first", first)
        assert main([*unlearn("first"), "--checkpoint", "runs/original/1/checkpoints/last.ckpt", "--name", "x"]) == 0
    return folder


@pytest.fixture
def work(photos, tmp_path, monkeypatch):
    """A copy of that folder as the current directory."""
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


def unlearn(name):
    return ["unlearn", "-c", "base.yaml", "-c", "method.yaml", *QUIET, *listed(name)]


def listed(name):
    return ["--data.forget", "ListedSamples", "--data.forget.path", f"{name}.csv"]


def next_request(name, run="runs/x/1"):
    return ["unlearn", "--run", run, *QUIET, *listed(name)]


def request(name, entries):
    Path(f"{name}.csv").write_text("key\n" + "\n".join(entries) + "\n")


def split_of(folder):
    return json.loads((Path(folder) / "split.json").read_text())


def spy(monkeypatch):
    """Keys of all samples that any loader serves from now on, in training and in evaluation."""
    served = set()
    make = BatchMaker.make

    def making(self, images, piece, augment):
        served.update(self.samples.keys[i] for i in piece.index.tolist())
        return make(self, images, piece, augment)

    monkeypatch.setattr(BatchMaker, "make", making)
    return served


def same(first, second):
    first, second = (read_weights(path)[0] for path in (first, second))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_first_requests_files_are_gone_and_a_second_comes_by_file_names(work, monkeypatch, capsys):
    before, first = split_of("runs/original/1/checkpoints"), split_of("runs/x/1")
    for key in first["forget"]:
        Path("photos/train", key).unlink()
    second = before["retain"][10:13]
    request("second", [Path(key).name for key in second])
    served = spy(monkeypatch)
    assert main(next_request("second")) == 0
    assert "error" not in capsys.readouterr().err
    split = split_of("runs/x/2")
    # The right ones, although all positions behind the first request's have shifted.
    assert split["forget"] == second
    assert split["removed"] == first["forget"]
    assert split["unseen"] == before["unseen"]
    assert sorted(split["retain"]) == sorted(set(before["retain"]) - set(first["forget"]) - set(second))
    assert split["classes"] == list(CLASSES)
    assert served
    assert not served & set(first["forget"])
    assert [entry.keys for entry in read_ledger(Path("runs/x/2"))] == [sorted(first["forget"]), sorted(second)]
    config = yaml.safe_load(Path("runs/x/2/config.yaml").read_text())
    assert config["checkpoint"] == "runs/x/1/unlearned.ckpt"
    assert config["name"] == "method"
    # Judged by the same samples, and by no other.
    assert main(["evaluate", "--run", "runs/x/2", *QUIET]) == 0
    rows = [json.loads(Path(f"runs/{name}/report.json").read_text())["rows"][-1] for name in ("x/2", "evaluate/1")]
    assert rows[0]["metrics"]["forget/acc"] == rows[1]["metrics"]["forget/acc"]


def test_what_the_first_request_was_for_is_not_what_the_next_one_is_for(work):
    earlier = Path("runs/x/1/config.yaml")
    config = yaml.safe_load(earlier.read_text())
    default = config["goal"]
    earlier.write_text(yaml.safe_dump({**config, "goal": "repair"}))
    request("second", split_of("runs/x/1")["retain"][:3])
    assert main(next_request("second")) == 0
    assert yaml.safe_load(Path("runs/x/2/config.yaml").read_text())["goal"] == default != "repair"


def test_a_request_with_old_and_new_samples_does_the_new_ones(work, capsys):
    old, new = split_of("runs/x/1")["forget"], split_of("runs/x/1")["retain"][5:7]
    request("mixed", [*old, *new])
    assert main([*next_request("mixed"), "--name", "y"]) == 0
    assert split_of("runs/y/1")["forget"] == new
    assert split_of("runs/y/1")["removed"] == old
    report = json.loads(Path("runs/y/1/report.json").read_text())
    assert report["requests"][0]["never_trained"] == 0
    assert "4 samples of the request were forgotten before and are not counted." in report["warnings"]


def test_repeating_a_request_changes_nothing_and_says_so(work, capsys):
    files = sorted(path for path in work.rglob("*") if path.is_file())
    content = Path("runs/x/1/ledger.jsonl").read_bytes()
    for key in split_of("runs/x/1")["forget"][:2]:
        Path("photos/train", key).unlink()
        files.remove(work / "photos/train" / key)
    assert main(next_request("first")) == 0
    assert "nothing to do: Nothing is left to forget: earlier requests have removed the 4 samples" in capsys.readouterr().out
    assert sorted(path for path in work.rglob("*") if path.is_file()) == files
    assert Path("runs/x/1/ledger.jsonl").read_bytes() == content


def test_a_reference_of_the_second_request_misses_both(work, capsys, monkeypatch):
    request("second", split_of("runs/x/1")["retain"][5:7])
    assert main(next_request("second")) == 0
    served = spy(monkeypatch)
    assert main(["fit", "--run", "runs/x/2", "--trainer.max_epochs", "1", "--name", "reference"]) == 0
    split, reference = split_of("runs/x/2"), split_of("runs/reference/1/checkpoints")
    assert reference["retain"] == split["retain"]
    assert set(split["retain"]) <= served
    assert not served & {*split["forget"], *split["removed"]}
    assert main(["fit", "--resume", "runs/reference/1"]) == 0
    checkpoint = "runs/reference/1/checkpoints/last.ckpt"
    assert main(["evaluate", "--run", "runs/x/2", *QUIET, "--references", checkpoint]) == 0
    # The reference of the first request alone knows the second's samples, and the original those of both.
    assert main(["fit", "--run", "runs/x/1", "--trainer.max_epochs", "1", "--name", "early"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--run", "runs/x/2", *QUIET, "--references", "runs/early/1/checkpoints/last.ckpt"]) == 2
    assert "was trained on 2 of the forgotten samples" in capsys.readouterr().err
    assert main(["fit", "--run", "runs/x/2", "--trainer.max_epochs", "1", "--data.view", "train"]) == 2
    assert "trains a reference of runs/x/2" in capsys.readouterr().err


def test_a_training_that_goes_on_from_an_unlearned_model_leaves_out_what_it_forgot(work):
    assert main(["fit", "-c", "base.yaml", "--checkpoint", "runs/x/1/unlearned.ckpt", "--name", "on"]) == 0
    first, further = split_of("runs/x/1"), split_of("runs/on/1/checkpoints")
    assert further["retain"] == first["retain"]
    assert further["removed"] == first["forget"]
    assert further["unseen"] == first["unseen"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unlearn", "--run", "runs/x/1"], "needs the next request. Give --data.forget"),
        (["unlearn", "--run", "runs/none/1", *listed("first")], "is no run"),
        (["benchmark", "--run", "runs/x/1"], "--run belongs to evaluate, unlearn, fit, detect, not to benchmark"),
        (["unlearn", "--run", "runs/x/1", "--resume", "runs/x/1"], "--run was given together with --resume"),
        (["fit", "--run", "runs/original/1", "--trainer.max_epochs", "1"], "is a run of fit; needed: one of unlearn"),
        (["purge"], "required: RUN"),
        (["purge", "runs/original/1"], "is no finished run of unlearn"),
        (["report", "--verify", "runs/original/1"], "has no ledger.jsonl"),
    ],
)
def test_bad_calls(work, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_requests_that_would_hit_the_wrong_samples_are_refused(work, capsys):
    gone = split_of("runs/x/1")["retain"][3]
    Path("photos/train", gone).unlink()
    request("numbers", ["1", "2"])
    assert main(next_request("numbers")) == 2
    assert "an index may mean another sample by now" in capsys.readouterr().err
    request("late", [gone])
    assert main(next_request("late")) == 2
    assert "whose images are gone although the model still knows them" in capsys.readouterr().err
    for part in ("train", "test"):
        for path in Path("photos", part, "cat").iterdir():
            path.unlink()
        Path("photos", part, "cat").rmdir()
    request("owl", ["owl/train03_owl.png"])
    assert main(next_request("owl")) == 2
    assert 'Its classes were ["cat", "dog", "owl"]' in capsys.readouterr().err


def test_a_damaged_ledger_stops_the_next_request(work, capsys):
    path = Path("runs/x/1/ledger.jsonl")
    path.write_text(path.read_text().replace("first.csv", "other.csv"))
    request("second", split_of("runs/x/1")["retain"][5:7])
    assert main(next_request("second")) == 2
    assert "Line 1 was changed" in capsys.readouterr().err
    assert not Path("runs/x/2").exists()
    assert main(["report", "--verify", "runs/x/1"]) == 2
    assert "Line 1 was changed: its content does not fit its hash." in capsys.readouterr().err


def test_report_shows_the_history(work, capsys):
    request("second", split_of("runs/x/1")["retain"][5:7])
    assert main(next_request("second")) == 0
    capsys.readouterr()
    assert main(["report", "runs/x/2"]) == 0
    out = capsys.readouterr().out
    assert "request 1:" in out
    assert "2 samples, listed in second.csv" in out
    last = read_ledger(Path("runs/x/2"))[-1].hash
    assert last in out
    page = Path("runs/x/2/report.html").read_text()
    assert "Requests, one after another" in page
    assert not [key for key in split_of("runs/x/2")["forget"] if key in page]
    assert main(["report", "--verify", "runs/x/2", "runs/x/1"]) == 0
    assert f"2 requests; ledger, report, split and checkpoint agree. Last hash: {last}" in capsys.readouterr().out


def test_a_class_that_is_gone_does_not_count_at_the_next_request(work, capsys):
    by_class = ["unlearn", "--run", "runs/x/1", *QUIET, "--data.forget", "WholeClasses", "--data.forget.classes", "[owl]"]
    assert main([*by_class, "--name", "y"]) == 0
    request("next", split_of("runs/y/1")["retain"][:2])
    assert main([*next_request("next", "runs/y/1"), "--name", "z"]) == 0
    first, second = (json.loads(Path(f"runs/{name}/1/report.json").read_text()) for name in "yz")
    owl = CLASSES.index("owl")
    for row in second["rows"]:
        assert row["details"]["per_class"][owl] == {"class": "owl", "forget": None, "retain": None, "test": None}
    # What the first of them leaves is what the second one starts from.
    left, start = first["rows"][-1]["metrics"], second["rows"][0]["metrics"]
    assert second["rows"][0]["role"] == "original"
    assert start["test/acc"] == left["test/acc"]
    assert "test_forgotten/acc" in left
    assert "test_forgotten/acc" not in start
    # Before the first request three classes were tested, and no accuracy of two of them is known.
    assert set(first["first"]) == set(second["first"]) == {"retain/acc"}


def test_what_all_requests_together_cost_is_said(work, capsys):
    """None of them shows it alone, and what the second one calls original is the result of the first."""
    assert "Original" in Path("runs/x/1/report.html").read_text()
    request("second", split_of("runs/x/1")["retain"][5:7])
    assert main(next_request("second")) == 0
    request("third", split_of("runs/x/1")["retain"][8:9])
    assert main(next_request("third", "runs/x/2")) == 0
    out = capsys.readouterr().out
    assert "This model  Before this request" in out
    reports = [json.loads(Path(f"runs/x/{number}/report.json").read_text()) for number in (1, 2, 3)]
    first = {name: reports[0]["rows"][0]["metrics"][name] for name in ("retain/acc", "test/acc")}
    assert [(report["earlier"], report["first"]) for report in reports] == [(0, {}), (1, first), (2, first)]
    now = reports[2]["rows"][-1]["metrics"]
    text = f"Since the first original, 3 requests ago, retain accuracy went from {first['retain/acc']:.1f} to"
    assert text in out
    fell = any(first[name] - now[name] > 5 for name in first)
    assert any(text in said for said in (reports[2]["warnings"] if fell else reports[2]["rows"][-1]["notes"]))
    page = Path("runs/x/3/report.html").read_text()
    assert "Before this request" in page
    assert ">Original<" not in page
    assert main(["evaluate", "--run", "runs/x/3", *QUIET]) == 0
    judged = json.loads(Path("runs/evaluate/1/report.json").read_text())
    assert (judged["earlier"], judged["first"]) == (2, first)
    # Where the report of the run before is gone, nothing is known and nothing said.
    Path("runs/x/2/report.json").unlink()
    assert main(["evaluate", "--run", "runs/x/3", *QUIET]) == 0
    assert json.loads(Path("runs/evaluate/2/report.json").read_text())["first"] == {}


def test_an_older_result_is_not_gone_on_from_unless_asked(work, capsys):
    """What the newer run forgot would be retained again."""
    retained = split_of("runs/x/1")["retain"]
    request("second", retained[5:7])
    request("third", retained[8:9])
    assert main(next_request("second")) == 0
    capsys.readouterr()
    assert main(next_request("third")) == 2
    err = capsys.readouterr().err
    assert "runs/x/2 goes on from runs/x/1/unlearned.ckpt" in err
    assert "--from_older true" in err
    assert not Path("runs/x/3").exists()
    assert main([*next_request("third"), "--from_older", "true"]) == 0
    assert split_of("runs/x/3")["removed"] == split_of("runs/x/1")["forget"]
    assert set(retained[5:7]) <= set(split_of("runs/x/3")["retain"])
    # Also where it has another name.
    shutil.rmtree("runs/x/3")
    shutil.move("runs/x/2", "runs/z/1")
    capsys.readouterr()
    assert main(next_request("third")) == 2
    assert "runs/z/1 goes on from runs/x/1/unlearned.ckpt" in capsys.readouterr().err
    shutil.move("runs/z/1", "runs/x/2")
    # Also where it has only begun; the run itself goes on.
    for name in ("unlearned.ckpt", "report.json"):
        Path("runs/x/2", name).unlink()
    last = read_ledger_line("runs/x/2")
    Path("runs/x/2/ledger.jsonl").unlink()
    Path("runs/x/2/request.json").write_text(last.line() + "\n")
    capsys.readouterr()
    assert main(next_request("third")) == 2
    assert "It is not finished: unlearn --resume runs/x/2 first" in capsys.readouterr().err
    Path("runs/x/2/request.json").write_text(replace(last, time="", after="", hash="").line() + "\n")
    assert main(["unlearn", "--resume", "runs/x/2"]) == 0


def read_ledger_line(run):
    return entries_in(Path(run, "ledger.jsonl"))[-1]


@pytest.mark.parametrize("command", ["unlearn", "fit"])
def test_a_result_that_lost_its_history_is_refused(work, capsys, command):
    request("second", split_of("runs/x/1")["retain"][5:7])
    Path("moved").mkdir()
    shutil.copy("runs/x/1/unlearned.ckpt", "moved/x.ckpt")
    call = unlearn("second") if command == "unlearn" else ["fit", "-c", "base.yaml"]
    assert main([*call, "--checkpoint", "moved/x.ckpt", "--output", "out"]) == 2
    err = capsys.readouterr().err
    assert "moved/x.ckpt is the result of request 1 on its model, and beside it lies no split.json" in err
    assert "copy that folder whole" in err
    shutil.copy("runs/x/1/split.json", "moved")
    assert main([*call, "--checkpoint", "moved/x.ckpt", "--output", "out"]) == 2
    assert "beside it lies no ledger.jsonl" in capsys.readouterr().err
    assert main(next_request("second")) == 0
    request("third", split_of("runs/x/1")["retain"][8:9])
    call = unlearn("third") if command == "unlearn" else call
    shutil.copy("runs/x/1/unlearned.ckpt", "runs/x/2/first.ckpt")
    assert main([*call, "--checkpoint", "runs/x/2/first.ckpt", "--output", "out"]) == 2
    assert "the ledger.jsonl of another checkpoint" in capsys.readouterr().err
    shutil.copytree("runs/x/2", "whole")
    Path("whole/first.ckpt").unlink()
    assert main([*call, "--checkpoint", "whole/unlearned.ckpt", "--output", "out"]) == 0


def test_a_missing_ledger_stops_the_next_request(work, capsys):
    for name in ("ledger.jsonl", "report.json"):
        Path("runs/x/1", name).unlink()
    request("second", split_of("runs/x/1")["retain"][5:7])
    assert main(["unlearn", *next_request("second")[1:], "--name", "y"]) == 2
    assert "ledger.jsonl" in capsys.readouterr().err


def test_a_checkpoint_that_was_purged_is_no_unfinished_run(work, capsys):
    request("second", split_of("runs/x/1")["retain"][5:7])
    request("third", split_of("runs/x/1")["retain"][8:9])
    assert main(next_request("second")) == 0
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert not Path("runs/x/1/unlearned.ckpt").exists()
    capsys.readouterr()
    assert main(next_request("third")) == 2
    err = capsys.readouterr().err
    assert "runs/x/1 is finished, and its checkpoint was deleted (purge). Go on from runs/x/2" in err
    assert "--resume" not in err
    shutil.rmtree("runs/x/2")
    assert main(next_request("third")) == 2
    assert "Restore it from a backup" in capsys.readouterr().err


def test_a_run_is_judged_when_its_forgotten_files_are_deleted(work, capsys):
    gone = split_of("runs/x/1")["forget"]
    for key in gone:
        Path("photos/train", key).unlink()
    assert main(["evaluate", "--run", "runs/x/1", *QUIET]) == 0
    assert "None of the 4 forgotten samples that split.json names is in the data" in capsys.readouterr().out
    before, after = (json.loads(Path(f"runs/{name}/report.json").read_text()) for name in ("x/1", "evaluate/1"))
    for row in (0, -1):
        assert after["rows"][row]["metrics"]["retain/acc"] == pytest.approx(before["rows"][row]["metrics"]["retain/acc"])
        assert after["rows"][row]["metrics"]["test/acc"] == pytest.approx(before["rows"][row]["metrics"]["test/acc"])
        assert "forget/acc" not in after["rows"][row]["metrics"]
    assert [row["method"] for row in after["rows"]] == [row["method"] for row in before["rows"]]
    assert after["requests"][0]["count"] == len(gone)
    assert after["requests"][0]["digest"] == before["requests"][0]["digest"]


def test_what_a_checkpoint_was_made_to_forget_counts_more_than_an_example(work, capsys, caplog):
    """The rule of a config that a training saved is nobody's request, as is that of a shipped one."""
    config = yaml.safe_load(Path("base.yaml").read_text())
    config["data"]["forget"] = {"class_path": "RandomCount", "init_args": {"count": 9}}
    Path("example.yaml").write_text(yaml.safe_dump({"command": "fit", **config}))
    call = ["evaluate", "-c", "example.yaml", *QUIET, "--checkpoint"]
    assert main([*call, "runs/x/1/unlearned.ckpt"]) == 0
    assert "nobody named" not in capsys.readouterr().err + caplog.text
    digests = [
        json.loads(Path(f"runs/{name}/report.json").read_text())["requests"][0]["digest"] for name in ("x/1", "evaluate/1")
    ]
    assert digests[0] == digests[1]
    # Where no split says so, the example counts, and that is said.
    assert main([*call, "runs/original/1/checkpoints/last.ckpt"]) == 0
    assert "nobody named what to forget" in capsys.readouterr().err + caplog.text
    assert json.loads(Path("runs/evaluate/2/report.json").read_text())["requests"][0]["count"] == 9


@pytest.mark.faults
def test_killed_in_the_middle_of_a_request_it_goes_on(work, capsys):
    request("second", split_of("runs/x/1")["retain"][5:7])
    stage = {"class_path": "FineTune", "init_args": {"max_epochs": 1, "cache": False}}
    long = {"class_path": "FineTune", "init_args": {"max_epochs": 100, "cache": False}}
    Path("long.yaml").write_text(yaml.safe_dump({"stages": [stage, long]}))
    call = [*next_request("second"), "-c", "long.yaml"]
    process = start(*call, "--output", "killed", folder=work)
    end = time.monotonic() + 300
    while not Path("killed/stage0.ckpt").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not Path("killed/unlearned.ckpt").exists()
    assert not Path("killed/ledger.jsonl").exists()
    begun = json.loads(Path("killed/request.json").read_text())
    assert main(["report", "--verify", "killed"]) == 2
    assert "A request was begun and not finished" in capsys.readouterr().err
    assert main(["unlearn", "--resume", "killed"]) == 0
    assert main([*call, "--output", "whole"]) == 0
    assert same("killed/unlearned.ckpt", "whole/unlearned.ckpt")
    killed, whole = (read_ledger(Path(name)) for name in ("killed", "whole"))
    assert [(e.keys, e.settings, e.before) for e in killed] == [(e.keys, e.settings, e.before) for e in whole]
    assert killed[-1].begun == begun["begun"]
    assert not Path("killed/request.json").exists()
