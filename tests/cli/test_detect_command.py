"""Wrong labels are found from the command line, looked at in the report, and forgotten or relabelled."""

import csv
import json

from lightning_unlearn.cli import main
from tests.cli.conftest import CHECKPOINT

RECORDED = "runs/recorded/1/checkpoints/last.ckpt"
UNLEARN = ["unlearn", "-c", "base.yaml", "--checkpoint", RECORDED, "--relearn_epochs", "0", "--goal", "repair"]
RULE = ["--data.forget", "SuspectedMislabels", "--data.forget.path", "runs/detect/1/scores.csv"]


def test_from_a_recorded_training_to_a_better_model(work, capsys):
    fit = ["fit", "-c", "base.yaml", "-c", "trainer/record_margins", "--trainer.max_epochs", "40", "--name", "recorded"]
    assert main(fit) == 0
    capsys.readouterr()
    assert main(["detect", "-c", "base.yaml", "--checkpoint", RECORDED, "--contact_sheet", "3"]) == 0
    out = capsys.readouterr().out
    assert "suspected, by mean_loss (the upper part of a mixture of two)" in out
    assert "self_influence" in out
    assert "known to be wrong" in out
    found = json.loads((work / "runs/detect/1/report.json").read_text())["detected"]
    assert found["known_wrong"] == 96
    assert found["scores"][0]["auroc"] > 0.9
    page = (work / "runs/detect/1/report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "img-src data:" in page
    with (work / "runs/detect/1/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    marked = {row["key"] for row in rows if row["suspected"] == "1"}

    # A run says by itself what is to be looked at.
    assert main(["detect", "--run", "runs/recorded/1", "--output", "of_run"]) == 0
    assert (work / "of_run/scores.csv").read_bytes() == (work / "runs/detect/1/scores.csv").read_bytes()

    # The report can be built again.
    assert main(["report", "runs/detect/1", "--output", "again"]) == 0
    assert (work / "again/report.html").read_text() == page
    assert "auroc" in (work / "again/report.csv").read_text()

    assert main([*UNLEARN, "-c", "method/relabel_suggested", *RULE, "--output", "better"]) == 0
    assert set(json.loads((work / "better/split.json").read_text())["forget"]) == marked
    report = json.loads((work / "better/report.json").read_text())
    accuracy = {row["role"]: row["metrics"]["test/acc"] for row in report["rows"]}
    # The original knows wrong labels by heart.
    assert accuracy["method"] > accuracy["original"] + 3
    # Not to agree with wrong labels is no failure, and retraining without them is not what was aimed at.
    out, page = capsys.readouterr().out, (work / "better/report.html").read_text()
    lines = out[out.index("This model") :].splitlines()
    assert lines[1].startswith("Test acc")
    assert any(line.startswith("Given labels") for line in lines)
    assert "Given labels: Agreement with the given, suspected labels, %" in out
    assert "to be forgotten, their labels being suspected." in out
    assert page.index("<dt>Test accuracy</dt>") < page.index("<dt>Agreement with the given, suspected labels</dt>")
    for words in ("Forget acc", "Accuracy on forgotten samples", "No retrained reference", "No reference"):
        assert words not in out + page, words

    assert main(["unlearn", "--run", "better", *RULE, "--output", "twice"]) == 0
    out = capsys.readouterr().out
    assert f"nothing to do: Nothing is left to forget: earlier requests have removed the {len(marked)} samples of this" in out

    # The saved config of a recorded fit does not disturb other commands.
    call = ["unlearn", "-c", "runs/recorded/1/config.yaml", "-c", "method.yaml", "--checkpoint", RECORDED, *RULE]
    call += ["--data.forget.count", "20", "--data.forget.column", "loss", "--relearn_epochs", "0", "--output", "fewer"]
    assert main(call) == 0
    assert "suspected labels: 20 highest by loss in scores.csv" in (work / "fewer/report.json").read_text()


def test_a_plain_checkpoint_and_folds(work, capsys):
    detect = ["detect", "-c", "base.yaml", "--checkpoint", CHECKPOINT]
    folds = ["--score", "[out_of_fold,loss]", "--folds", "2", "--trainer.max_epochs", "3", "--count", "30"]
    assert main([*detect, *folds]) == 0
    assert "30 of 500 samples (6.0 %) are suspected, by out_of_fold (the 30 highest)" in capsys.readouterr().out
    found = json.loads((work / "runs/detect/1/report.json").read_text())["detected"]
    assert [score["name"] for score in found["scores"]] == ["out_of_fold", "loss"]
    assert all(suspect["image"] == "" for suspect in found["suspects"])
    assert "<img" not in (work / "runs/detect/1/report.html").read_text()
    with (work / "runs/detect/1/scores.csv").open() as file:
        assert sum(row["suspected"] == "1" for row in csv.DictReader(file)) == 30


def test_bad_calls_leave_nothing(work, capsys):
    detect = ["detect", "-c", "base.yaml", "--checkpoint", CHECKPOINT]
    for arguments, message in (
        (["--score", "lose"], "score is lose; needed: different ones of mean_loss"),
        (["--score", "aum"], "Train with -c trainer/record_margins"),
        (["--score", "out_of_fold"], "Give --trainer.max_epochs"),
        (["--score", "out_of_fold", "--trainer.max_epochs", "1", "--folds", "1"], "folds is 1; needed: 2 to 500"),
        (["--count", "0"], "count is 0"),
        (["--count", "5", "--quantile", "0.9"], "Both count 5 and quantile 0.9"),
        (["--quantile", "2"], "quantile is 2.0"),
        (["--contact_sheet", "-1"], "contact_sheet is -1"),
        (["--checkpoint", "gone.ckpt"], "gone.ckpt"),
    ):
        assert main([*detect, *arguments]) == 2, arguments
        assert message in capsys.readouterr().err
        assert not (work / "runs/detect").exists()
    assert main(["detect", "-c", "base.yaml"]) == 2
    assert "detect needs a trained model" in capsys.readouterr().err


def test_bad_calls_are_refused_before_data_are_read(work, capsys):
    # The data do not exist: nobody looks for them.
    nowhere = ["--data.dataset", "ImageFolder", "--data.dataset.train", "nowhere", "--data.dataset.test", "nowhere"]
    nowhere += ["--data.dataset.image_size", "8"]
    detect = ["detect", "-c", "model/small_cnn", *nowhere, "--checkpoint", CHECKPOINT]
    for arguments, message in (
        (["--score", "meanloss"], "Did you mean 'mean_loss'?"),
        (["--quantile", "90"], "quantile is 90.0; needed: above 0 and below 1"),
        (["--count", "0"], "count is 0"),
    ):
        assert main([*detect, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["detect", "-c", "base.yaml", "--checkpoint", CHECKPOINT, "--count", "20000"]) == 2
    out, err = capsys.readouterr()
    assert "count is 20000, and there are 500 samples; ask for fewer" in err
    assert "runs/" not in out
