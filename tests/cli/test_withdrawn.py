"""Listed samples that the model was never trained on: not forgotten, but nothing looks at them any more."""

import json
from pathlib import Path

import pytest

from lightning_unlearn.cli import main
from lightning_unlearn.requests.ledger import read_ledger
from lightning_unlearn.weights.checkpoint import read_weights
from tests.cli.conftest import start
from tests.cli.test_requests import (
    QUIET,
    next_request,
    photos,  # ruff: ignore[unused-import]
    request,
    same,
    split_of,
    spy,
    unlearn,
    work,  # ruff: ignore[unused-import]
)

pytestmark = pytest.mark.usefixtures("work")
LOOKING = {"stages": [{"class_path": "ImitateUnseen", "init_args": {"max_epochs": 1}}]}


def report_of(run):
    return json.loads(Path(run, "report.json").read_text())


def test_unseen_samples_of_a_request_are_in_no_part_from_the_first_stage_on(monkeypatch, capsys):
    before = split_of("runs/x/1")
    unseen, retained = before["unseen"][:2], before["retain"][5:9]
    request("mixed", [*unseen, *retained])
    served = spy(monkeypatch)
    assert main(next_request("mixed")) == 0
    assert "2 samples of the request were never trained on and are not counted as forgotten, but withdrawn" in (
        capsys.readouterr().out
    )
    split = split_of("runs/x/2")
    assert split["forget"] == retained
    assert split["withdrawn"] == sorted(unseen)
    assert split["unseen"] == before["unseen"][2:]
    assert served >= {*split["unseen"], *retained}
    assert not served & set(unseen)
    assert report_of("runs/x/2")["requests"][0] | {"count": 4, "never_trained": 2} == report_of("runs/x/2")["requests"][0]
    last = read_ledger(Path("runs/x/2"))[-1]
    assert last.keys == sorted(retained)
    assert last.withdrawn == sorted(unseen)
    capsys.readouterr()
    assert main(["report", "--verify", "runs/x/2"]) == 0
    assert "4 samples and 2 withdrawn, never trained on" in capsys.readouterr().out
    assert main(["purge", "runs/x/2"]) == 0
    out = capsys.readouterr().out
    assert "forgotten by runs/x/2 and the runs before it: 8 samples and 2 withdrawn, never trained on" in out
    assert "your data: 10 of the 10 forgotten files are there" in out
    # Whatever comes after it.
    assert main(["evaluate", "--run", "runs/x/2", *QUIET]) == 0
    assert "2 samples of the request were never trained on and are not counted as forgotten, but withdrawn" in (
        capsys.readouterr().out
    )
    assert report_of("runs/evaluate/1")["requests"] == report_of("runs/x/2")["requests"]
    rows = [report_of(run)["rows"][-1]["metrics"] for run in ("runs/x/2", "runs/evaluate/1")]
    assert rows[0]["unseen/acc"] == rows[1]["unseen/acc"]
    assert main(["fit", "--run", "runs/x/2", "--trainer.max_epochs", "1", "--name", "reference"]) == 0
    assert main(["fit", "-c", "base.yaml", "--checkpoint", "runs/x/2/unlearned.ckpt", "--name", "on"]) == 0
    request("third", [unseen[0], before["retain"][12]])
    capsys.readouterr()
    assert main(next_request("third", "runs/x/2")) == 0
    out = capsys.readouterr().out
    assert "1 sample of the request was forgotten or withdrawn before and is not counted" in out
    assert "of the request was never trained on" not in out
    for folder in ("runs/reference/1/checkpoints", "runs/on/1/checkpoints", "runs/x/3"):
        assert split_of(folder)["withdrawn"] == sorted(unseen)
        assert split_of(folder)["unseen"] == split["unseen"]
    assert read_ledger(Path("runs/x/3"))[-1].withdrawn == []
    assert not served & set(unseen)


def test_a_withdrawn_sample_that_the_split_has_again_is_found(capsys):
    request("mixed", [split_of("runs/x/1")["unseen"][0], split_of("runs/x/1")["retain"][0]])
    assert main(next_request("mixed")) == 0
    split = split_of("runs/x/2")
    split["unseen"] += split.pop("withdrawn")
    Path("runs/x/2/split.json").write_text(json.dumps(split))
    assert main(["report", "--verify", "runs/x/2"]) == 2
    assert "does not know 1 sample of line 2 as withdrawn" in capsys.readouterr().err


def test_files_of_withdrawn_samples_may_be_deleted_and_come_back(monkeypatch):
    gone = split_of("runs/x/1")["unseen"][:2]
    content = {key: Path("photos/train", key).read_bytes() for key in gone}
    Path("photos/train", gone[0]).unlink()
    request("mixed", [*gone, split_of("runs/x/1")["retain"][0]])
    assert main(next_request("mixed")) == 0
    assert split_of("runs/x/2")["withdrawn"] == sorted(gone)
    Path("photos/train", gone[1]).unlink()
    for key in gone:
        Path("photos/train", key).write_bytes(content[key])
    served = spy(monkeypatch)
    request("third", split_of("runs/x/1")["retain"][3:5])
    assert main(next_request("third", "runs/x/2")) == 0
    assert served
    assert not served & set(gone)


@pytest.mark.parametrize("removed", [False, True])
def test_a_request_of_unseen_samples_alone_is_recorded_and_changes_no_weight(monkeypatch, capsys, removed):
    before = split_of("runs/x/1")
    unseen = before["unseen"][:3]
    request("unseen", [*unseen, *(before["forget"][:2] if removed else [])])
    served = spy(monkeypatch)
    assert main(next_request("unseen")) == 0
    out = capsys.readouterr().out
    assert "3 samples of the request were never trained on" in out
    assert "nothing was to be forgotten" in out
    assert same("runs/x/1/unlearned.ckpt", "runs/x/2/unlearned.ckpt")
    assert not served & set(unseen)
    split = split_of("runs/x/2")
    assert (split["forget"], split["withdrawn"], split["unseen"]) == ([], sorted(unseen), before["unseen"][3:])
    assert (split["removed"], split["retain"]) == (before["forget"], before["retain"])
    assert [(entry.keys, entry.withdrawn) for entry in read_ledger(Path("runs/x/2"))][1] == ([], sorted(unseen))
    assert main(["report", "--verify", "runs/x/2"]) == 0
    # It is judged, and a reference of it trained, by what it left.
    capsys.readouterr()
    assert main(["evaluate", "--run", "runs/x/2", *QUIET]) == 0
    assert "Nothing was forgotten; 3 samples were withdrawn" in capsys.readouterr().out
    rows = {row["role"]: row["metrics"] for row in report_of("runs/evaluate/1")["rows"]}
    assert rows["method"] == rows["original"] == report_of("runs/x/2")["rows"][0]["metrics"]
    assert report_of("runs/evaluate/1")["requests"][0]["count"] == 0
    assert main(["fit", "--run", "runs/x/2", "--trainer.max_epochs", "1", "--name", "reference"]) == 0
    reference = split_of("runs/reference/1/checkpoints")
    assert (reference["retain"], reference["withdrawn"]) == (before["retain"], sorted(unseen))
    assert not served & set(unseen)
    # Again, there is nothing left to do, and the same exit code.
    assert main(next_request("unseen", "runs/x/2")) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not Path("runs/x/3").exists()
    request("third", before["retain"][5:7])
    assert main(next_request("third", "runs/x/2")) == 0
    assert split_of("runs/x/3")["withdrawn"] == sorted(unseen)
    capsys.readouterr()
    assert main(["purge", "runs/x/3", "--yes"]) == 0
    assert main(["report", "--verify", "runs/x/3"]) == 0


def test_what_a_request_that_only_withdrew_started_from_stays(capsys):
    request("unseen", split_of("runs/x/1")["unseen"][:1])
    assert main(next_request("unseen")) == 0
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert Path("runs/x/1/unlearned.ckpt").is_file()
    assert not Path("runs/original/1/checkpoints/last.ckpt").exists()


def test_the_first_request_may_be_of_unseen_samples_alone():
    unseen = split_of("runs/original/1/checkpoints")["unseen"]
    request("unseen", unseen[1:])
    checkpoint = "runs/original/1/checkpoints/last.ckpt"
    assert main([*unlearn("unseen"), "--checkpoint", checkpoint, "--name", "y"]) == 0
    assert split_of("runs/y/1")["unseen"] == unseen[:1]
    assert read_weights("runs/y/1/unlearned.ckpt")[0].keys() == read_weights(checkpoint)[0].keys()
    assert main(["fit", "-c", "base.yaml", "--checkpoint", "runs/y/1/unlearned.ckpt", "--name", "on"]) == 0
    assert split_of("runs/on/1/checkpoints")["unseen"] == unseen[:1]


def test_without_unseen_samples_half_of_the_test_set_takes_their_place(capsys):
    config = Path("base.yaml").read_text().replace("unseen: 6", "unseen: null")
    Path("base.yaml").write_text(config)
    request("all", [*split_of("runs/x/1")["unseen"], split_of("runs/x/1")["retain"][0]])
    assert main([*unlearn("all"), "--checkpoint", "runs/x/1/unlearned.ckpt", "--name", "x"]) == 0
    assert "No sample is left that the checkpoint never saw" in capsys.readouterr().out
    assert main(["evaluate", "--run", "runs/x/2", *QUIET]) == 0
    rows = [report_of(run)["rows"][-1]["metrics"] for run in ("runs/x/2", "runs/evaluate/1")]
    assert rows[0]["unseen/acc"] == rows[1]["unseen/acc"]
    assert rows[0]["test/acc"] == rows[1]["test/acc"]


@pytest.mark.ddp
def test_two_ranks_withdraw_the_same(work):  # ruff: ignore[redefined-while-unused]
    before = split_of("runs/x/1")
    request("mixed", [*before["unseen"][:2], *before["retain"][5:7]])
    request("unseen", before["unseen"][2:4])
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    for number, name in ((2, "mixed"), (3, "unseen")):
        process = start(*next_request(name, f"runs/x/{number - 1}"), *two, folder=work)
        assert process.communicate(timeout=300)
        assert process.returncode == 0
        assert split_of(f"runs/x/{number}")["unseen"] == before["unseen"][2 * number - 2 :]
        assert main(["report", "--verify", f"runs/x/{number}"]) == 0


@pytest.mark.faults
def test_killed_before_it_was_finished_it_withdraws_the_same(work):  # ruff: ignore[redefined-while-unused]
    before = split_of("runs/x/1")
    request("mixed", [*before["unseen"][:2], *before["retain"][5:7]])
    assert main(next_request("mixed")) == 0
    whole = read_ledger(Path("runs/x/2"))[-1]
    for name in ("unlearned.ckpt", "report.json", "ledger.jsonl"):
        Path("runs/x/2", name).unlink()
    Path("runs/x/2/request.json").write_text("")
    assert main(["unlearn", "--resume", "runs/x/2"]) == 0
    assert read_ledger(Path("runs/x/2"))[-1].withdrawn == whole.withdrawn == sorted(before["unseen"][:2])
