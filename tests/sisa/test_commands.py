"""The user's path: fit, unlearn, a second request, evaluate; what is refused."""

import csv
import json

import pytest

from lightning_unlearn.cli import main

DATA = ("-c", "data/digits", "--data.dataset.train_size", "300", "--data.unseen", "100", "--trainer.accelerator", "cpu")
MODEL = ("-c", "model/sisa", "--model.network", "MLP", "--model.shards", "2", "--model.slices", "2")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def request(path, keys):
    path.write_text("\n".join(["key", *keys]) + "\n")
    return ("--data.forget", "ListedSamples", "--data.forget.path", str(path), "--relearn_epochs", "0")


def test_fit_unlearn_again_evaluate(tmp_path, capsys, caplog):
    assert main(["fit", *DATA, *MODEL, "--trainer.max_epochs", "6", "--name", "digits"]) == 0
    assert "unseen/acc" in capsys.readouterr().out
    with (tmp_path / "runs/digits/1/metrics.csv").open() as file:
        assert any(row["unseen/acc"] for row in csv.DictReader(file))
    keys = json.loads((tmp_path / "runs/digits/1/checkpoints/split.json").read_text())["retain"]
    assert len(list((tmp_path / "runs/digits/1/checkpoints/slices").glob("*.ckpt"))) == 4

    call = ["unlearn", *DATA, *MODEL, "-c", "method/sisa"]
    first = [*call, "--checkpoint", "runs/digits/1", *request(tmp_path / "one.csv", keys[:2])]
    assert main([*first, "--output", "first"]) == 0
    out = capsys.readouterr().out
    assert "SISA plan:" in out
    # Nothing says that this is not known.
    assert "exact by construction: the model was trained without the forgotten samples" in out
    page = (tmp_path / "first/report.html").read_text()
    for words in ("not evidence of forgetting", "is not known", "cannot be said"):
        assert words not in out + page, words
    report = json.loads((tmp_path / "first/report.json").read_text())
    assert 0 < report["rows"][-1]["stages"][0]["requests"]["1"] < 1
    # What knew the samples is gone, and whoever asks for it is told where to go on.
    assert not list((tmp_path / "runs/digits/1").rglob("*.ckpt"))
    assert main([*first, "--output", "again"]) == 2
    assert "runs/digits/1 went with samples that it knew" in capsys.readouterr().err

    assert main([*call, "--checkpoint", "first", *request(tmp_path / "two.csv", keys[2:4]), "--output", "second"]) == 0
    split = json.loads((tmp_path / "second/split.json").read_text())
    assert sorted(split["removed"]) == sorted(keys[:2])
    assert not (tmp_path / "first/unlearned.ckpt").exists()
    capsys.readouterr()
    assert main([*call, "--checkpoint", "second", *request(tmp_path / "three.csv", ["nobody"]), "--output", "third"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()

    assert main(["evaluate", "--run", "second", "--relearn_epochs", "0"]) == 0
    judged = json.loads((tmp_path / "runs/evaluate/1/report.json").read_text())
    assert [(row["role"], row["exact"]) for row in judged["rows"]] == [("method", True)]
    capsys.readouterr()
    # Another method is not exact, and leaves nothing to delete from.
    fine_tune = ["unlearn", *DATA, *MODEL, "-c", "method/fine_tune", "--checkpoint", "second", "--output", "tuned"]
    assert main([*fine_tune, *request(tmp_path / "four.csv", keys[4:6])]) == 0
    warning = json.loads((tmp_path / "tuned/report.json").read_text())["warnings"][0]
    assert warning.startswith("The model is a SISA ensemble, from which -c method/sisa deletes exactly. FineTune changes all")
    assert "the result is not exact" in warning
    assert "not evidence of forgetting" in capsys.readouterr().out
    assert main(["export", "second", "--output", "exported"]) == 2
    assert "several networks and their vote" in capsys.readouterr().err
    assert main(["fit", *DATA, *MODEL, "--trainer.max_epochs", "6", "--checkpoint", "second/unlearned.ckpt"]) == 2
    assert "takes no --checkpoint" in capsys.readouterr().err
    assert main([*call, "--checkpoint", "second", "--model.shards", "0", "--output", "fourth"]) == 2
    assert "shards is 0" in capsys.readouterr().err
    # A request that only withdraws brings the slices along, so that the next one can delete.
    withdrawn = [*call, "--checkpoint", "second", *request(tmp_path / "three.csv", split["unseen"][:1])]
    assert main([*withdrawn, "--output", "third", "--from_older", "true"]) == 0
    assert len(list((tmp_path / "third/slices").glob("*.ckpt"))) == 4
    assert not (tmp_path / "second/unlearned.ckpt").exists()
    assert main([*call, "--checkpoint", "third", *request(tmp_path / "four.csv", keys[6:7]), "--output", "fifth"]) == 0
