"""What `purge` finds, deletes and names: every file of weights below the folder is loaded, and its record compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.cli import main
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import ListedSamples
from lightning_unlearn.data.saved_split import SavedSplit, class_key
from lightning_unlearn.data.tables import write_rows
from lightning_unlearn.files import lock_folder
from lightning_unlearn.purge import find
from lightning_unlearn.report.audit_schema import Audit, Exposed
from lightning_unlearn.report.decode import encode
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.requests.ledger import past_requests, read_ledger
from lightning_unlearn.weights.trained_on import Kept, kept_keys, record_beside
from tests.cli.conftest import CHECKPOINT, UNLEARN

QUIET = ("--relearn_epochs", "0")


@pytest.fixture(scope="module")
def history(trained, tmp_path_factory):
    """Two requests on one original, a bank, predictions, and what else lies about after a while."""
    folder = tmp_path_factory.mktemp("history")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(CHECKPOINT, "mine.ckpt")
        shutil.copy("runs/fit/1/checkpoints/split.json", "split.json")
        call = [*UNLEARN[:5], "--checkpoint", "mine.ckpt", *UNLEARN[7:]]
        assert main([*call, "--name", "x"]) == 0
        second = SavedSplit.load("runs/x/1/split.json").retain[:5]
        Path("second.txt").write_text("\n".join(second))
        listed = ["--data.forget", "ListedSamples", "--data.forget.path", "second.txt"]
        assert main(["unlearn", "--run", "runs/x/1", *QUIET, *listed]) == 0
        assert main(["fit", "--run", "runs/x/2", "--trainer.max_epochs", "1", "--name", "reference"]) == 0
        assert main(["predict", "-c", "base.yaml", "--checkpoint", "mine.ckpt"]) == 0
        data = UnlearningDataModule(Digits(train_size=600), ListedSamples("second.txt"), unseen=100, batch_size=64)
        recipe = Recipe(lambda: Classifier("SmallCNN", in_chans=1), 1, {"accelerator": "cpu"})
        bank = Bank("runs/bank")
        bank.trained(recipe, data, "train", 0)
        # Trained without the second request, but on samples of the first.
        bank.trained(recipe, data, "retain", 1)
        data.use_split_of("runs/x/2/unlearned.ckpt", forgotten_is_removed=False)
        bank.trained(recipe, data, "retain", 2)
    return folder


@pytest.fixture
def work(history, tmp_path, monkeypatch):
    shutil.copytree(history, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forgotten():
    split = SavedSplit.load("runs/x/2/split.json")
    assert len(split.forget) == 5
    assert len(split.removed) == 50
    return {*split.forget, *split.removed}


def weights(place="runs"):
    return {str(path) for path in Path(place).rglob("*") if path.suffix in (".ckpt", ".npz", ".pt", ".part", ".tmp")}


def knowing():
    """Files of weights that know a forgotten sample, by the record beside each."""
    found = set()
    for path in weights():
        kept = kept_keys(Path(path))
        assert path.endswith(".npz") or kept is not None, path
        if kept is not None and kept.keys & forgotten():
            found.add(path)
    return found


def test_a_dry_run_lists_and_deletes_nothing(work, capsys):
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert main(["purge", "runs/x/2"]) == 0
    out = capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert "55 samples" in out
    would, left = out.split("not deleted:")
    assert "would be deleted (with --yes)" in would
    for path in knowing():
        assert path in would
    assert f"{CHECKPOINT}: trained on 55 forgotten samples, with its optimiser state" in would
    assert "runs/x/1/unlearned.ckpt: trained on 5 forgotten samples" in would
    assert "runs/predict/1/outputs.npz: answers of models to single samples" in would
    assert "mine.ckpt: the checkpoint that a request started from; it lies outside" in left
    assert "exported models" in left


def test_nothing_that_knows_a_forgotten_sample_remains(work, capsys):
    named = knowing()
    assert len(named) == 4  # the original, the first request's result, two entries of the bank
    assert len(list(Path("runs/bank").glob("*/weights.ckpt"))) == 3
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert knowing() == set()
    kept = {"runs/x/2/unlearned.ckpt", "runs/reference/1/checkpoints/last.ckpt"}
    assert {path for path in weights() if "bank" not in path} == kept
    [entry] = Path("runs/bank").glob("*/weights.ckpt")
    assert (entry.parent / "entry.json").is_file()
    for path in (*kept, entry):
        Classifier.load(path)
    assert Path("mine.ckpt").is_file()
    record = Path("runs/x/2/purge.txt").read_text()
    assert "mine.ckpt" in record.split("not deleted:")[1]
    # What stays is whole: the run can be verified, judged, and go on.
    assert main(["report", "--verify", "runs/x/2"]) == 0
    assert main(["evaluate", "--run", "runs/reference/1", *QUIET]) == 0
    capsys.readouterr()
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert "deleted: 0 places" in capsys.readouterr().out


def test_what_cannot_be_deleted_is_named(work, capsys):
    Path("runs/stray.ckpt").write_bytes(b"?")
    Path("runs/link.ckpt").symlink_to(work / "mine.ckpt")
    # An earlier state that a killed writer left, and one in the middle of unlearning.
    shutil.copy(CHECKPOINT, "runs/fit/1/checkpoints/.last.ckpt.123-0123abcd.tmp")
    shutil.copy(CHECKPOINT, "runs/x/1/stage0.ckpt")
    Path("runs/x/1/stage0.json").write_text("{}")
    shutil.copy("mine.ckpt", "runs/copy.ckpt")
    # Samples of the same keys, not by content, of another set.
    other = SavedSplit(["cat/1.png"], ["cat/2.png"], [], [], data="mine")
    Path("runs/other").mkdir()
    SavedSplit([], ["cat/1.png"], [], [], data="yours").save("runs/other/split.json")
    Path("runs/other/model.ckpt").write_bytes(b"others")
    split = SavedSplit.load("runs/x/2/split.json")
    replace(split, removed=[*split.removed, *other.forget], data="mine").save("runs/x/2/split.json")
    (work / "scores").mkdir()
    Path("runs/scores.csv").write_text(f"key,memorisation\n{split.forget[0]},0.5\n")
    with lock_folder("runs/fit/1"):
        assert main(["purge", "runs/x/2", "--yes"]) == 0
    deleted, left = capsys.readouterr().out.split("not deleted:")
    assert "runs/stray.ckpt: nothing beside it says what it was trained on" in left
    assert "runs/link.ckpt: a link" in left
    assert "runs/scores.csv: scores of forgotten samples" in left
    assert "in use by process" in left
    assert Path(CHECKPOINT).is_file()
    assert "but of the data set 'yours'" in left
    assert Path("runs/other/model.ckpt").is_file()
    assert not Path("runs/copy.ckpt").exists()
    assert "runs/copy.ckpt: the checkpoint that a request started from" in deleted
    assert not list(Path("runs/x/1").glob("stage*"))
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert not list(Path("runs/fit/1/checkpoints").glob("*.ckpt*"))


def test_pictures_and_the_users_own_data_are_looked_at(work, capsys):
    keys = sorted(forgotten())
    Path("photos").mkdir()
    Path("photos", keys[0]).touch()
    config = yaml.safe_load(Path("runs/x/2/config.yaml").read_text())
    config["data"]["dataset"] = {"class_path": "ImageFolder", "init_args": {"train": "photos", "test": "photos"}}
    for run in ("x/2", "predict/1"):
        Path(f"runs/{run}/config.yaml").write_text(yaml.safe_dump(config))
    Path("runs/predict/1/report.html").write_text('<img src="data:image/png;base64,AAAA">')
    Path("runs/predict/1/plain.html").write_text("<p>nothing</p>")
    assert main(["purge", "runs/x/2"]) == 0
    would, left = capsys.readouterr().out.split("not deleted:")
    assert "runs/predict/1/report.html: pictures of training samples may be in it" in would
    assert "plain.html" not in would + left
    assert "photos: your data: 1 of the 55 forgotten files are there" in left
    assert f"still in photos: {keys[0]!r}" in left
    # The screen alone names it.
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert keys[0] not in Path("runs/x/2/purge.txt").read_text()


def test_the_bank_says_what_its_models_were_trained_on(work):
    records = [json.loads(path.read_text()) for path in Path("runs/bank/trained").iterdir()]
    assert sorted(len(record["keys"]) for record in records) == [445, 495, 500]
    assert {record["data"] for record in records} == {"digits"}


PLACE = "/data/photos/train"


@pytest.fixture
def by_paths(work):
    """A run whose forgotten samples have names of files as keys, as far as purge looks at it."""
    split = SavedSplit.load("runs/x/2/split.json")
    keys = ["cat/1.png", "cat/2.png"]
    replace(split, removed=[*split.removed, *keys], data="photos", place=PLACE).save("runs/x/2/split.json")
    return keys


def weights_of(folder, kept):
    Path(folder).mkdir()
    Path(folder, "w.ckpt").write_bytes(folder.encode())
    if isinstance(kept, SavedSplit):
        kept.save(Path(folder, "split.json"))
    else:
        record_beside(Path(folder, "w.ckpt"), kept)


def said_of(found, path):
    deletable, left = ([f.why for f in part if f.path == Path(path).resolve()] for part in (found.deletable, found.left))
    return deletable, left


@pytest.mark.parametrize("kind", [SavedSplit, Kept])
def test_names_of_files_count_only_where_the_data_are_known_to_be_the_same(by_paths, kind):
    def knows(data, place):
        return (
            SavedSplit([], by_paths, [], [], [], data, place) if kind is SavedSplit else Kept(frozenset(by_paths), data, place)
        )

    weights_of("runs/same", knows("photos", PLACE))
    weights_of("runs/elsewhere", knows("photos", "/mine/photos/train"))
    weights_of("runs/unplaced", knows("photos", ""))
    weights_of("runs/unnamed", knows("", ""))
    found = find(Path("runs/x/2"))
    assert said_of(found, "runs/same/w.ckpt") == (["trained on 2 forgotten samples"], [])
    names = "trained on 2 samples of these names"
    assert said_of(found, "runs/elsewhere/w.ckpt") == ([], [f"{names}, but of the data in /mine/photos/train"])
    for folder in ("unplaced", "unnamed"):
        assert said_of(found, f"runs/{folder}/w.ckpt") == ([], [f"{names}; whether they are of the same data is not recorded"])


def test_keys_that_only_look_like_hashes_delete_nothing_of_other_data(work):
    """The user numbered samples in 16 digits, and another set of theirs likewise."""
    split, keys = SavedSplit.load("runs/x/2/split.json"), [f"{i:016x}" for i in range(2)]
    weights_of("runs/other", SavedSplit([], keys, [], [], data="yours", place="/yours.npz"))
    # Splits of earlier versions do not say it: then the form of the keys counts.
    for by_content in (False, True, None):
        mine = replace(split, removed=[*split.removed, *keys], data="mine", place="/mine.npz", by_content=by_content)
        mine.save("runs/x/2/split.json")
        deletable, left = said_of(find(Path("runs/x/2")), "runs/other/w.ckpt")
        assert bool(deletable) == (by_content is not False)
        assert left == ([] if deletable else ["trained on 2 samples of these names, but of the data set 'yours'"])


def test_a_list_of_keys_without_the_data_that_they_belong_to_deletes_nothing(by_paths):
    weights_of("runs/old", Kept(frozenset(by_paths), "", ""))
    Path("runs/old/w.ckpt.trained.json").write_text(json.dumps(by_paths))
    assert said_of(find(Path("runs/x/2")), "runs/old/w.ckpt") == ([], ["nothing beside it says what it was trained on"])


def test_a_class_forgotten_without_data(work, capsys):
    """The original is known by its hash, whatever lies beside it; of other weights nobody knows what they saw."""
    split = SavedSplit.load("runs/x/2/split.json")
    entries = [replace(read_ledger(Path("runs/x/2"))[0], keys=[class_key(3)], after="").sealed()]
    last = replace(read_ledger(Path("runs/x/2"))[1], number=1, before=entries[0].before, keys=[class_key(3)], previous="0" * 64)
    last = last.sealed()
    Path("runs/x/2/ledger.jsonl").write_text(last.line() + "\n")
    report = Report.load("runs/x/2")
    report.history = past_requests([last])
    save_report(report, Path("runs/x/2"))
    replace(split, forget=[class_key(3)], retain=["class:1"], unseen=[], removed=[], data="").save("runs/x/2/split.json")
    weights_of("runs/other", SavedSplit([class_key(5)], [class_key(3)], [], []))
    weights_of("runs/also", SavedSplit([], [class_key(1)], [], [class_key(3)]))
    found = find(Path("runs/x/2"))
    unknown = "whether it was trained on class 3, forgotten without data, is not recorded"
    assert said_of(found, "runs/other/w.ckpt") == ([], [unknown])
    assert said_of(found, "runs/also/w.ckpt") == ([], [])
    shutil.copy("mine.ckpt", "runs/also/w.ckpt")
    shutil.copy("mine.ckpt", "runs/other/w.ckpt")
    found = find(Path("runs/x/2"))
    for path in (CHECKPOINT, "runs/other/w.ckpt", "runs/also/w.ckpt"):
        assert said_of(found, path) == (["the checkpoint that a request started from"], [])
    assert said_of(found, "runs/reference/1/checkpoints/last.ckpt") == ([], [unknown])
    assert main(["purge", "runs/x/2"]) == 0
    assert "forgotten by runs/x/2 and the runs before it: 1 class\n" in capsys.readouterr().out
    assert main(["report", "--verify", "runs/x/2"]) == 0
    out = capsys.readouterr().out
    assert ", 1 class, " in out.replace("  ", ", ")
    assert "1 request; ledger" in out


def test_purge_finds_the_same_from_every_folder(work, capsys, monkeypatch):
    assert main(["purge", "runs/x/2"]) == 0
    here = [f.path for f in find(Path("runs/x/2")).deletable]
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = find(work / "runs/x/2")
    assert [f.path for f in found.deletable] == here
    assert [f.path for f in found.left] == [work / "mine.ckpt"]
    capsys.readouterr()
    assert main(["purge", str(work / "runs/x/2")]) == 0
    assert f"looked through: {work / 'runs'}" in capsys.readouterr().out


def test_folders_that_are_missing_are_refused_or_named(work, capsys):
    for option in ("--runs", "--bank"):
        assert main(["purge", "runs/x/2", option, "nowhere"]) == 2
        assert f"{option} is nowhere, which is no folder" in capsys.readouterr().err
    Path("mine.ckpt").unlink()
    shutil.rmtree("runs/bank")
    assert main(["purge", "runs/x/2"]) == 0
    left = capsys.readouterr().out.split("not deleted:")[1]
    assert "runs/bank: no bank is there" in left
    assert "mine.ckpt: the checkpoint that a request started from; it is not where it was" in left
    Path("runs").rename("kept")
    assert main(["purge", "kept/x/2"]) == 2
    assert "Give their folder: --runs DIR" in capsys.readouterr().err
    assert main(["purge", "kept/x/2", "--runs", "kept"]) == 0
    assert "kept/fit/1/checkpoints/last.ckpt: trained on" in capsys.readouterr().out


def test_test_files_of_the_same_names_are_not_taken_for_forgotten_ones(work, by_paths, capsys):
    for part in ("train", "test"):
        for key in by_paths:
            Path("photos", part, key).parent.mkdir(parents=True, exist_ok=True)
            Path("photos", part, key).touch()
    Path("photos/train", by_paths[0]).unlink()
    split = SavedSplit.load("runs/x/2/split.json")
    replace(split, place=str(work / "photos/train")).save("runs/x/2/split.json")
    config = yaml.safe_load(Path("runs/x/2/config.yaml").read_text())
    arguments = {"train": "photos/train", "test": "photos/test"}
    config["data"]["dataset"] = {"class_path": "ImageFolder", "init_args": arguments}
    Path("runs/x/2/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["purge", "runs/x/2"]) == 0
    left = capsys.readouterr().out.split("not deleted:")[1]
    assert "photos/train: your data: 1 of the 57 forgotten files are there" in left
    assert "photos/test" not in left


def test_links_to_folders_are_named(work, capsys):
    Path("far").mkdir()
    Path("runs/far").symlink_to(work / "far")
    shutil.copy(CHECKPOINT, "far/last.ckpt")
    assert main(["purge", "runs/x/2"]) == 0
    assert "runs/far: a link to a folder; not looked at" in capsys.readouterr().out.split("not deleted:")[1]


def test_a_folder_of_runs_is_not_taken_for_a_bank(work):
    """Unfinished entries are deleted in a bank alone, and never what looks like a run."""
    Path("runs/mine/1").mkdir(parents=True)
    Path("runs/mine/1/w.ckpt").write_bytes(b"w")
    unfinished, run = Path("runs/bank", "0" * 24), Path("runs/bank", "1" * 24)
    for folder in (unfinished, run):
        folder.mkdir()
        (folder / "w.ckpt").write_bytes(b"w")
    (run / "config.yaml").touch()
    found = find(Path("runs/x/2"), bank=Path("runs/mine"))
    assert said_of(found, "runs/mine/1/w.ckpt") == ([], ["nothing beside it says what it was trained on"])
    found = find(Path("runs/x/2"))
    assert said_of(found, unfinished / "w.ckpt")[0] == ["an entry of the bank that was never finished"]
    assert said_of(found, run / "w.ckpt") == ([], ["nothing beside it says what it was trained on"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "take"),
        ({"train": "HERE/photos/train", "mean": None}, "take"),
        ({"train": "runs/../photos/train", "image_size": 16}, "leave"),
        ({"train": "others/train"}, None),
    ],
)
def test_answers_on_the_same_data_in_other_words_are_found(work, given, expected):
    config = yaml.safe_load(Path("runs/x/2/config.yaml").read_text())
    arguments = {"train": "photos/train", "test": "photos/test", "image_size": 8}
    for run, changes in (("x/2", {}), ("predict/1", given)):
        changes = {
            name: value.replace("HERE", str(work)) if isinstance(value, str) else value for name, value in changes.items()
        }
        config["data"]["dataset"] = {"class_path": "ImageFolder", "init_args": {**arguments, **changes}}
        Path(f"runs/{run}/config.yaml").write_text(yaml.safe_dump(config))
    deletable, left = said_of(find(Path("runs/x/2")), "runs/predict/1/outputs.npz")
    assert deletable == (["answers of models to single samples"] if expected == "take" else [])
    assert [why.partition(";")[0] for why in left] == (["answers of models to single samples"] if expected == "leave" else [])


def test_another_size_of_a_set_without_a_place_is_in_doubt(work):
    config = yaml.safe_load(Path("runs/predict/1/config.yaml").read_text())
    config["data"]["dataset"]["init_args"]["train_size"] = 500
    Path("runs/predict/1/config.yaml").write_text(yaml.safe_dump(config))
    [why] = said_of(find(Path("runs/x/2")), "runs/predict/1/outputs.npz")[1]
    assert "the data set is given otherwise" in why
    config["data"]["dataset"]["class_path"] = "lightning_unlearn.data.MNIST"
    Path("runs/predict/1/config.yaml").write_text(yaml.safe_dump(config))
    assert said_of(find(Path("runs/x/2")), "runs/predict/1/outputs.npz") == ([], [])


def test_audits_that_name_forgotten_samples_are_found_and_their_reports_stay(work, capsys):
    def audit(run, key):
        folder = Path("runs", run)
        found = Audit("r", [], [], [], exposed={"mine": [Exposed(of, "1", 0.9, 4.0, 1.0) for of in ("other", key)]})
        save_report(Report("audit", "", "", "untrain", "audit", audits=[found]), folder)
        (folder / "cells").mkdir()
        (folder / "cells/audit-0.json").write_text(json.dumps(encode(found)))
        shutil.copy("runs/x/2/config.yaml", folder)
        return folder

    key = min(forgotten())
    mine, others, elsewhere = (audit(*of) for of in (("mine", key), ("nobody", "?"), ("far", key)))
    config = yaml.safe_load((elsewhere / "config.yaml").read_text())
    config["data"]["dataset"] = {"class_path": "ImageFolder", "init_args": {"train": "others/train"}}
    (elsewhere / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["purge", "runs/x/2"]) == 0
    would, left = capsys.readouterr().out.split("not deleted:")
    assert f"{mine}/cells/audit-0.json: figures of the most exposed forgotten samples under their keys" in would
    assert f"{elsewhere}/cells/audit-0.json: figures of the most exposed forgotten samples under their keys; the data" in left
    for name in ("report.json", "report.html"):
        assert f"{mine}/{name}: a report, which is evidence, that names forgotten samples by their keys" in left
    assert str(others) not in would + left
    assert "in reports of audits and of detect, which name some of them" in left
    assert main(["purge", "runs/x/2", "--yes"]) == 0
    assert [(folder / "cells/audit-0.json").exists() for folder in (mine, others, elsewhere)] == [False, True, True]
    assert (mine / "report.json").is_file()
    assert key not in Path("runs/x/2/purge.txt").read_text()


def test_scores_under_keys_with_commas_are_named(work):
    split, key = SavedSplit.load("runs/x/2/split.json"), 'cat, "old"/im, 001.png'
    replace(split, removed=[*split.removed, key]).save("runs/x/2/split.json")
    write_rows("runs/scores.csv", [["key", "memorisation"], ["dog.png", 0.1], [key, 0.5]])
    write_rows("runs/others.csv", [["key", "memorisation"], ["dog.png", 0.1]])
    found = find(Path("runs/x/2"))
    assert said_of(found, "runs/scores.csv") == ([], ["scores of forgotten samples under their keys, no images"])
    assert said_of(found, "runs/others.csv") == ([], [])
