"""Scores of training samples, and forget sets chosen by them."""

import csv
import json

from lightning_unlearn.cli import main
from tests.cli.conftest import CHECKPOINT


def test_scores_then_unlearn_the_highest(work, capsys):
    call = ["scores", "-c", "base.yaml", "--trainer.max_epochs", "2", "--repeats", "1", "--method", "method.yaml"]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "of 500 samples have a memorisation of 0.5 or more" in out
    with (work / "runs/scores/1/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    assert set(rows[0]) == {"key", "memorisation", "leak"}

    rule = ["--data.forget", "ByScore", "--data.forget.path", "runs/scores/1/scores.csv", "--data.forget.column", "leak"]
    rule += ["--data.forget.count", "20"]
    unlearn = ["unlearn", "-c", "base.yaml", "-c", "method.yaml", "--checkpoint", CHECKPOINT, "--relearn_epochs", "0"]
    assert main([*unlearn, *rule, "--output", "worst"]) == 0
    assert "20 highest by leak in scores.csv" in (work / "worst/report.json").read_text()
    highest = {row["key"] for row in sorted(rows, key=lambda row: -float(row["leak"]))[:20]}
    assert set(json.loads((work / "worst/split.json").read_text())["forget"]) == highest


def test_scores_need_a_length_and_a_known_method(work, capsys):
    assert main(["scores", "-c", "base.yaml"]) == 2
    assert "scores needs its length" in capsys.readouterr().err
    assert main(["scores", "-c", "base.yaml", "--trainer.max_epochs", "1", "--method", "fine_tun"]) == 2
    assert "fine_tune" in capsys.readouterr().err
    assert not (work / "runs/scores").exists()
