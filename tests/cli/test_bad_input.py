"""Bad files, requests, settings and classes of the user's own: one line with cause and remedy, exit code 2, nothing written."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
import yaml

from lightning_unlearn.cli import main
from tests.cli.conftest import CHECKPOINT, UNLEARN
from tests.cli.test_errors import refused

FIT = ["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]
LISTED = [*UNLEARN[:9], "--data.forget", "ListedSamples", "--data.forget.path"]


class Evil:
    """Makes a folder when it is restored."""

    def __reduce__(self):
        return os.mkdir, ("hacked",)


def trained_keys(folder, part="retain"):
    return json.loads((folder / "runs/fit/1/checkpoints/split.json").read_text())[part]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a checkpoint"),
        (b"PK\x03\x04" + bytes(50), "cut short or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (pickle.dumps(Evil(), protocol=2), r"Python object \w+.mkdir"),
        (pickle.dumps(Evil(), protocol=4), "plain pickle, which could run any code"),
        (pickle.dumps({"a": 1}, protocol=4), "plain pickle, which could run any code"),
    ],
    ids=["empty", "text", "cut", "lfs", "evil", "evil-new", "plain"],
)
def test_bad_checkpoints(work, capsys, content, message):
    (work / "bad.ckpt").write_bytes(content)
    refused(capsys, [*UNLEARN, "--checkpoint", "bad.ckpt"], message, work)
    assert not (work / "hacked").exists()


def test_a_whole_pickled_object_in_a_checkpoint(work, capsys):
    torch.save({"state_dict": Evil()}, work / "bad.ckpt")
    refused(capsys, [*UNLEARN, "--checkpoint", "bad.ckpt"], "nothing was loaded", work)
    assert not (work / "hacked").exists()


@pytest.mark.parametrize("path", ["", "https://example.org/last.ckpt"])
def test_checkpoints_are_local_files(work, capsys, path):
    refused(capsys, [*UNLEARN, "--checkpoint", path], "is no local file; needed: the path of a checkpoint", work)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "index\n99999\n", "Index 99999 is outside the training set; needed: 0 to 599"),
        ("r.csv", "index\n-1\n", "Index -1 is outside"),
        ("r.csv", "key\nnope\n", "No training sample has the key or file name 'nope'"),
        ("r.csv", "", "names no sample"),
        ("r.csv", "key,index\na,3\n", "say with --data.forget.column"),
        ("r.json", "[true, false]", "entry 0 is a boolean, true; needed: an integer index or a text"),
        ("r.json", "[1.0]", "entry 0 is a float"),
        ("r.json", '{"a": 1}', "holds no list"),
        ("r.json", "[1,", "is not valid JSON"),
        ("r.xlsx", "x", "the ending '.xlsx' is not known"),
    ],
)
def test_bad_requests(work, capsys, name, content, message):
    (work / name).write_text(content)
    refused(capsys, [*LISTED, name], message, work)


def test_requests_for_everything_or_nothing(work, capsys):
    (work / "r.csv").write_text("\n".join(["key", *trained_keys(work, "retain")]) + "\n")
    refused(capsys, [*LISTED, "r.csv"], "none is retained", work)
    refused(capsys, [*LISTED, "none.csv"], "no such file", work)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("[eleven]", "There is no class 'eleven'; the classes are 0, 1"),
        ("[10]", "Class 10 is out of range; needed: 0 to 9"),
        # Quotes make it a name, as a folder may have it.
        ("['10']", "There is no class '10'; the classes are 0, 1"),
        ("[3, 3]", "Class 3 is given twice"),
        ("[]", "The list of classes is empty"),
        ("[1.5]", "classes is '1.5'; needed: str or int"),
    ],
)
def test_bad_classes(work, capsys, classes, message):
    refused(capsys, [*UNLEARN[:9], "--data.forget", "WholeClasses", "--data.forget.classes", classes], message, work)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--trainer.max_epochs", "0"], "would train nothing: its length is 0"),
        (["--trainer.precision", "13"], "trainer.precision is '13'; needed: 64"),
        (["--seed_everything", "-5"], "seed_everything is -5; needed: 0 to 4294967295"),
        (["--seed_everything", "x"], "seed_everything is 'x'; needed: bool or int"),
        (["--data.unseen", "2.5"], "unseen is 2.5; needed: a share below 1, a whole number"),
        (["--data.unseen", "600"], "unseen is 600.0 of 600 training samples"),
        (["--data.num_workers", "-1"], "num_workers is -1"),
        (["--data.label_noise.fraction", "2"], "fraction is 2.0; needed: 0 to 1"),
        (["--data.trigger", "Trigger", "--data.trigger.fraction", "2"], "fraction is 2.0; needed: above 0, at most 1"),
        (["--data.trigger", "{fraction: 0.1, size: 9}"], "The trigger is 9 pixels wide and images are 8x8"),
        (["--data.trigger", "{fraction: 0.1, target: 10}"], "target is 10 and there are 10 classes"),
        (["--data.trigger", "{fraction: 0.1, place: middle}"], "place"),
        (["--data.forget", "TriggeredSamples", "--data.view", "retain"], "No sample has a trigger"),
        (["--data.view", "forget"], "there is no forget rule"),
        (["--model.in_chans", "3"], "model.in_chans is 3 and the data have 1. It follows the data; leave it out"),
        (["--model.num_classes=5"], "model.num_classes is 5 and the data have 10"),
        (["--model.network_args", "{in_chans: 3}"], r"cannot read images of \(1, 8, 8\)"),
        (["--model.network_args", "{num_classes: 5}"], r"\(2, 5\) and the data have 10 classes"),
        (["--model.network_args", "{width: 5}"], "SmallCNN refuses its arguments"),
        (["--model.network_args", "{widths: [-1]}"], "SmallCNN cannot be built from .* Change network_args"),
        (["--model.optimizer.lr", "-1"], "The optimizer refuses its settings: Invalid learning rate: -1.0"),
        (["--model.label_smoothing", "3"], "label_smoothing is 3.0; needed: 0 to 1"),
        (["--output", "runs/fit/1"], "nothing is written over. Go on with --resume runs/fit/1"),
        (["--output", "base.yaml"], "base.yaml is a file; needed: a folder"),
        (["--output", "base.yaml/x"], "Not a directory"),
        (["--name", "../x"], "needed: a name below runs/"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_settings_of_a_fit(work, capsys, extra, message):
    refused(capsys, [*FIT, *extra], message, work)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is an accelerator")
def test_a_device_that_is_not_there(work, capsys):
    refused(capsys, [*FIT, "--trainer.accelerator", "gpu"], "Give --trainer.accelerator cpu, or auto", work)


def test_a_fit_that_diverges_ends_at_that_step(work, capsys):
    capsys.readouterr()
    assert main([*FIT, "--model.optimizer.lr", "1e30"]) == 2
    assert "a loss is not finite at batch 1 of epoch 0" in capsys.readouterr().err
    assert not list((work / "runs/fit").glob("2/checkpoints/*.ckpt"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"class_path": "ImitateUnseen"}], "needs the artifact 'targets'"),
        ([{"class_path": "NormDecay", "init_args": {"factor": 1}}], "A factor of 1 changes nothing"),
        ([{"class_path": "FineTune", "init_args": {"batch_size": 0}}], "FineTune: batch_size is 0; needed: at least 1"),
        ([{"class_path": "FineTune", "init_args": {"max_epochs": -1}}], "max_epochs is -1"),
        ([{"class_path": "ResetLayers", "init_args": {"last_blocks": 99}}], "99 blocks were asked for"),
        ([{"class_path": "torch.nn.Identity"}], "torch.nn.Identity is no UnlearningStage"),
        ([3], "stages\\[0\\] has no class_path, but 3; needed"),
        ([], "The chain is empty"),
        ([{"class_path": "own.Floating"}], "Floating: objective returned a float; needed: a tensor with one number"),
        ([{"class_path": "own.Blind"}], "has the view None; needed: one of train"),
        ([{"class_path": "own.Missing"}], "module 'own' has no attribute 'Missing'"),
    ],
)
def test_bad_stages(work, capsys, monkeypatch, stages, message):
    (work / "own.py").write_text(
        "from lightning_unlearn.stages import UnlearningStage\n\n"
        "class Blind(UnlearningStage):\n    pass\n\n"
        "class Floating(UnlearningStage):\n    view = 'retain'\n\n    def objective(self, batch):\n        return 3.0\n"
    )
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)
    (work / "bad.yaml").write_text(yaml.safe_dump({"stages": stages}))
    refused(capsys, [*UNLEARN[:3], "-c", "bad.yaml", *UNLEARN[5:]], message, work)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_lose_the_result(work, capsys, strategy):
    refused(capsys, [*UNLEARN, "--trainer.strategy", strategy], f"Strategy '{strategy}' cannot be used", work)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  batch_size: 3\n  batch_size: 4\n", "line 3: the key 'batch_size' stands twice"),
        ("data: !!python/object/apply:os.mkdir [hacked]\n", "could not determine a constructor"),
        ("? [a]\n: 3\n", "line 1: a key is a list"),
        ("data: &a {forget: *a}\n", "recursive"),
        ("name: 3\n", "name is '3'; needed: str"),
    ],
)
def test_bad_yaml(work, capsys, text, message):
    (work / "bad.yaml").write_text(text)
    refused(capsys, [*UNLEARN, "-c", "bad.yaml"], message, work)
    assert not (work / "hacked").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: "{", "is damaged"),
        (lambda split: json.dumps({**split, "unseen": None}), "'unseen' is not a list of keys"),
        (lambda split: json.dumps({**split, "unseen": split["retain"][:1]}), "twice"),
        (
            lambda split: json.dumps({**split, "retain": ["x"]}),
            "No sample of digits is one that the checkpoint was trained on",
        ),
    ],
)
def test_bad_splits(work, capsys, change, message):
    path = work / "runs/fit/1/checkpoints/split.json"
    path.write_text(change(json.loads(path.read_text())))
    refused(capsys, UNLEARN, message, work)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, -100] * 4), "labels of bad.npz are negative"),
        (np.eye(3)[[0, 1, 2] * 4], "one-hot perhaps"),
        (np.array([0, 1, 9] * 4), "No sample has the label 2, but labels reach 9"),
        (np.array([0.0, 1, 2] * 4), "are float64; needed: integers"),
    ],
)
def test_bad_labels(work, capsys, labels, message):
    np.savez(work / "bad.npz", images=np.zeros((12, 8, 8), np.uint8), labels=labels)
    np.savez(work / "test.npz", images=np.ones((12, 8, 8), np.uint8), labels=labels)
    dataset = {"class_path": "Arrays", "init_args": {"train": "bad.npz", "test": "test.npz"}}
    (work / "arrays.yaml").write_text(yaml.safe_dump({"data": {"dataset": dataset}}))
    refused(capsys, ["fit", "-c", "arrays.yaml", "--trainer.max_epochs", "1"], message, work)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["fit", "--resume", "runs/fit/1", "--name", "x"], "--name was given together with --resume"),
        (["unlearn", "--resume", "runs/fit/1"], "runs/fit/1 is a run of fit, not of unlearn"),
        ([*UNLEARN, "--references", f"[{CHECKPOINT}]"], "was trained on 50 of the forgotten samples, so it is no reference"),
        (["evaluate", "-c", "base.yaml", "--checkpoint", CHECKPOINT], "Nothing says what was forgotten"),
        ([*UNLEARN, "--relearn_epochs", "-1"], "error: relearn_epochs is -1; needed: 0 or more"),
        (["evaluate", *UNLEARN[1:3], *UNLEARN[5:7], *UNLEARN[-4:], "--relearn_epochs", "-1"], "error: relearn_epochs is -1"),
        (["report", "runs/fit/1"], "holds no report.json"),
        (["export", "runs/fit/1", "--output", "runs"], "runs is not empty; nothing was written"),
    ],
)
def test_runs_that_do_not_fit(work, capsys, call, message):
    refused(capsys, call, message, work)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "[fine_tun]"], "Nearest shipped name: 'method/fine_tune'"),
        (["--methods", "[]"], "needed: at least one of each"),
        (["--methods", "[method.yaml, method.yaml]"], "one name per method"),
        (["--methods", "[method.yaml]", "--seeds", "[0, 0]"], "each seed and draw once"),
        (["--methods", "[method.yaml]", "--references", "-1"], "-1 references"),
        (["--methods", "[method.yaml]", "--relearn_epochs", "-1"], "error: relearn_epochs is -1"),
    ],
)
def test_benchmarks_that_cannot_run_touch_nothing(work, capsys, extra, message):
    refused(capsys, ["benchmark", "-c", "base.yaml", "--trainer.max_epochs", "1", *UNLEARN[-4:], *extra], message, work)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Answers", "The model gives a dict; needed: a tensor of logits"),
        ("Module", "is no LightningModule. Give an nn.Module as --model.network"),
        ("Nope", "module 'mine_too' has no attribute 'Nope'"),
    ],
)
def test_bad_models_of_the_users_own(work, capsys, monkeypatch, name, message):
    (work / "mine_too.py").write_text(
        "from lightning.pytorch import LightningModule\nfrom torch import nn\n\n\n"
        "class Module(nn.Module):\n    pass\n\n\n"
        "class Answers(LightningModule):\n    def forward(self, images):\n        return {'logits': images}\n"
    )
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.delitem(__import__("sys").modules, "mine_too", raising=False)
    data = yaml.safe_load((work / "base.yaml").read_text())["data"]
    (work / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    refused(capsys, ["fit", "-c", "data.yaml", "--trainer.max_epochs", "1", "--model", f"mine_too.{name}"], message, work)


def test_one_class_named_by_two_paths_is_no_change(work, capsys):
    saved = work / "runs/fit/1/config.yaml"
    before = saved.read_text()
    for path in ("lightning_unlearn.classifier.Classifier", "lightning_unlearn.Classifier"):
        config = yaml.safe_load(before)
        config["model"]["class_path"] = path
        saved.write_text(yaml.safe_dump(config))
        assert main(["fit", "--resume", "runs/fit/1", "-c", "base.yaml"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_training_step_that_takes_pairs(work, capsys, monkeypatch):
    (work / "pairs.py").write_text(
        "from lightning_unlearn.classifier import Classifier\n\n\n"
        "class Pairs(Classifier):\n    def training_step(self, batch, batch_idx):\n        x, y = batch\n"
    )
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    data = yaml.safe_load((work / "base.yaml").read_text())["data"]
    (work / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    call = ["fit", "-c", "data.yaml", "--trainer.max_epochs", "1", "--model", "pairs.Pairs", "--model.network", "SmallCNN"]
    assert main(call) == 2
    error = capsys.readouterr().err
    assert "pairs.py, line 6" in error
    assert "Batch(input, target, index, total, epoch): take batch.input and batch.target" in error


def test_an_export_of_a_module_of_ones_own(work, capsys, monkeypatch):
    (work / "bare.py").write_text("from lightning.pytorch import LightningModule\n\n\nclass Bare(LightningModule):\n    pass\n")
    monkeypatch.syspath_prepend(work)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    path = work / "runs/fit/1/config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "model": {"class_path": "bare.Bare"}}))
    message = "bare.Bare is a LightningModule of your own.*--model.network file.Class"
    refused(capsys, ["export", "runs/fit/1", "--output", "exported"], message, work)


@pytest.mark.parametrize("command", ["unlearn", "evaluate", "test"])
def test_random_weights_are_asked_for_by_name(work, capsys, command):
    call = [command, "-c", "base.yaml", "--data.forget", "RandomFraction", "--data.forget.fraction", "0.1"]
    call += ["-c", "method.yaml"] if command == "unlearn" else []
    refused(capsys, call, "needs a trained model. Give --checkpoint .*or --checkpoint none", work)
    assert main([*call, *([] if command == "test" else ["--relearn_epochs", "0"]), "--checkpoint", "none"]) == 0
    said = capsys.readouterr()
    assert "input: grey 8x8, minus mean 0." in said.out
    if command == "unlearn":
        assert "of the retained samples, which it was trained on. The usual causes" in said.err
