"""Every shipped YAML runs through the command line; where its data are absent, it is parsed and the test says so."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.cli import main
from lightning_unlearn.config.shipped import config_names, find_config
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.functional.cut import cut

SHORT = ("--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1")
SMALL = ("--data.dataset.train_size", "400", "--data.unseen", "100", "--data.batch_size", "64")
# They work together, as tests/sisa/test_commands.py runs them.
ENSEMBLE = ("model/sisa", "method/sisa")
# Where the files of each data set lie below the folder of real data.
FILES = {
    "MNIST": ("MNIST/raw/train-images-idx3-ubyte",),
    "FashionMNIST": ("FashionMNIST/raw/train-images-idx3-ubyte",),
    "CIFAR10": ("cifar10/train.npz", "cifar-10-batches-py/data_batch_1"),
    "CIFAR10N": ("cifar10/human_labels.npz",),
    "CIFAR100": ("cifar-100-python/train",),
    "SVHN": ("train_32x32.mat",),
    "ImageFolder": ("tiny-imagenet-100/train",),
}


def content(name):
    return yaml.safe_load(find_config(name).read_text(encoding="utf-8"))


def root_of(dataset):
    """The folder of real data, or a skipped test."""
    folder = os.environ.get("LIGHTNING_UNLEARN_DATA")
    if not folder:
        pytest.skip("LIGHTNING_UNLEARN_DATA names no folder with real data")
    if not any((Path(folder) / file).exists() for file in FILES.get(dataset, ())):
        pytest.skip(f"{dataset} is not in the folder that LIGHTNING_UNLEARN_DATA names")
    return folder


def random_images(folder, size, train, test, classes):
    """Archives of random colour images."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("test", test)):
        images = np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        np.savez(folder / f"{part}.npz", images=images, labels=np.arange(count) % classes)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A checkpoint of a small ResNet that has seen 300 digits and their mnemonic codes."""
    folder = tmp_path_factory.mktemp("original")
    before = Path.cwd()
    os.chdir(folder)
    try:
        call = ["fit", *DIGITS, "-c", "model/resnet8", "-c", "trainer/cpu", "-c", "trainer/mnemonic_codes"]
        assert main([*call, "--trainer.max_epochs", "3"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/fit/1/checkpoints/last.ckpt"


DIGITS = ("-c", "data/digits", "--data.dataset.train_size", "400", "--data.unseen", "100")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", config_names())
def test_the_first_line_says_what_it_is(name):
    first, second = find_config(name).read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ")
    assert len(first) > 40
    assert not second.startswith("#")


def test_there_is_a_test_for_every_group():
    assert {name.split("/")[0] for name in config_names()} == {"data", "model", "method", "prepare", "trainer", "benchmark"}


@pytest.mark.parametrize("name", config_names("data"))
def test_data_parse(name):
    assert main(["fit", "-c", name, "-c", "model/small_cnn", "--trainer.max_epochs", "1", "--print_config"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("data"))
def test_data(name):
    kind = content(name)["data"]["dataset"]["class_path"]
    if kind == "ImageFolder":
        run_image_folder(name)
        return
    if kind == "SomeClasses":
        place = few_folders(20, "--data.dataset.dataset")
        limits = ("--data.dataset.per_class", "20", "--trainer.limit_val_batches", "1")
        assert len(content(name)["data"]["dataset"]["init_args"]["classes"]) == 20
        assert main(["fit", "-c", name, "-c", "model/small_cnn", *SHORT, *place, *limits]) == 0
        return
    given = []
    if kind != "Digits":
        # Without its files the error says where they must lie.
        assert main(["fit", "-c", name, "-c", "model/small_cnn", *SHORT]) == 2
        given = ["--data.dataset.root", root_of(kind)]
    assert main(["fit", "-c", name, "-c", "model/small_cnn", *SHORT, *SMALL, *given]) == 0
    assert Path("runs/fit/1/checkpoints/last.ckpt").is_file()


def few_folders(count, dataset="--data.dataset"):
    """Some classes of real photographs, as folders, and where they lie."""
    real = Path(root_of("ImageFolder")) / "tiny-imagenet-100"
    for part in ("train", "val"):
        Path("few", part).mkdir(parents=True)
        for folder in sorted((real / part).iterdir())[:count]:
            Path("few", part, folder.name).symlink_to(folder)
    return [f"{dataset}.train", "few/train", f"{dataset}.test", "few/val", f"{dataset}.image_size", "32"]


def run_image_folder(name):
    for i in range(24):
        path = Path("images", "train" if i < 16 else "test", f"class{i % 2}", f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    folders = ["--data.dataset.train", "images/train", "--data.dataset.test", "images/test", "--data.forget.fraction", "0.2"]
    call = ["fit", "-c", name, "-c", "model/resnet18", *folders, "--data.unseen", "4", "--data.batch_size", "4", *SHORT]
    assert main([*call, "--trainer.limit_val_batches", "1", "--data.num_workers", "0"]) == 0


def test_absent_data_are_answered_with_where_they_must_lie(capsys):
    assert main(["fit", "-c", "data/cifar10", "-c", "model/small_cnn", *SHORT]) == 2
    assert "files must lie in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in config_names("model") if name != ENSEMBLE[0]])
def test_model(name):
    random_images(Path("pictures"), 224 if name in ("model/vit_small", "model/resnet18") else 32, 24, 24, 3)
    call = ["fit", "-c", name, "--data.dataset", "Arrays", "--data.dataset.train", "pictures/train.npz"]
    call += ["--data.dataset.test", "pictures/test.npz", "--data.unseen", "4", "--data.batch_size", "4", *SHORT]
    assert main([*call, "--trainer.limit_val_batches", "1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in config_names("method") if name != ENSEMBLE[1]])
def test_method(name, original):
    call = ["unlearn", *DIGITS, "-c", "model/resnet8", "-c", name, "--checkpoint", str(original), "--relearn_epochs", "0"]
    if "suggestions: rule" in find_config(name).read_text(encoding="utf-8"):
        rows = [f"{key},{i % 10},{int(i < 40)}" for i, key in enumerate(Digits(train_size=400).train.keys)]
        Path("scores.csv").write_text("\n".join(["key,suggested,suspected", *rows]))
        call += ["--data.forget", "SuspectedMislabels", "--data.forget.path", "scores.csv"]
    if any(stage.whole_classes for stage in load_method(name)()):
        call += ["--data.forget", "WholeClasses", "--data.forget.classes", "[3]"]
    assert main([*call, "--trainer.accelerator", "cpu", "--output", "run"]) == 0
    assert Path("run/unlearned.ckpt").is_file()
    if "work" in content(name):
        report = json.loads(Path("run/report.json").read_text())
        [row] = [row for row in report["rows"] if row["role"] == "method"]
        assert sum(stage["work"] for stage in row["stages"]) == pytest.approx(formula(content(name)["work"]), rel=0.03)


def formula(work):
    """Image passes of a method by its own formula: 300 digits, of which 30 are forgotten, and 100 unseen ones."""
    network = Classifier(num_classes=10, in_chans=1, image_size=8, **content("model/resnet8")["model"]["init_args"]).network
    # The last stage and the head, which are the last two blocks as well.
    end = [name for name, _ in network.named_parameters() if name.startswith(("layer3", "linear"))]
    share = cut(network, end, torch.zeros(1, 1, 8, 8)).share
    known = {"forgotten": 30, "retained": 270, "unseen": 100, "classes": 10, "share": share, "min": min}
    return eval(work, {"__builtins__": {}}, known)


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("prepare"))
def test_prepare(name):
    text = find_config(name).read_text(encoding="utf-8")
    Path("short.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 3", text))
    call = ["benchmark", *DIGITS, "-c", "model/small_cnn", "-c", "trainer/cpu", "--trainer.max_epochs", "1"]
    call += ["--prepare", "short.yaml", "--methods", "[fisher_noise]", "--references", "1", "--relearn_epochs", "0"]
    assert main(call) == 0
    assert Path("runs/benchmark/report.html").is_file()


@pytest.mark.parametrize("name", config_names("trainer"))
def test_trainer_parse(name):
    assert main(["fit", *DIGITS, "-c", "model/mlp", "-c", name, "--trainer.max_epochs", "1", "--print_config"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("trainer"))
def test_trainer(name, capsys):
    call = ["fit", *DIGITS, "-c", "model/mlp", "-c", name, "--trainer.max_epochs", "1"]
    if content(name)["trainer"].get("accelerator") == "gpu" and not torch.cuda.is_available():
        assert main(call) == 2
        assert "gpu" in capsys.readouterr().err.lower()
        pytest.skip("no GPU: the error was checked")
    assert main(call) == 0


@pytest.mark.parametrize("name", config_names("benchmark"))
def test_benchmark_parse(name):
    assert main(["benchmark", "-c", name, "--print_config"]) == 0
    for method in content(name)["methods"]:
        assert f"method/{method}" in config_names("method")


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("benchmark"))
def test_benchmark(name):
    settings = content(name)
    kind = settings["data"]["dataset"]["class_path"]
    small = SMALL
    inner = settings["data"]["dataset"].get("init_args", {}).get("dataset", {}).get("class_path")
    if "ImageFolder" in (kind, inner):
        small = ("--data.batch_size", "64", "--trainer.accelerator", "cpu", "--data.num_workers", "0")
        if inner is None:
            small += tuple(few_folders(4))
        else:
            small += (*few_folders(4, "--data.dataset.dataset"), "--data.dataset.classes", "[0, 1, 2, 3]")
            small += ("--data.dataset.per_class", "50")
    elif kind == "SomeClasses":
        small = ("--data.dataset.per_class", "150", "--data.dataset.dataset.root", root_of(inner), *SMALL[2:])
    call = ["benchmark", "-c", name, "--trainer.max_epochs", "1", *small, "--relearn_epochs", "0", "--draws", "[0]"]
    call += ["--methods", "[fisher_noise]"]
    call += ["--models", "3"] if "tier" in settings else ["--references", "1", "--seeds", "[0]"]
    if kind in ("CIFAR10", "CIFAR10N"):
        # Random images in its layout: 10,000 real test images would take a minute and show no more.
        random_images(Path("few/cifar10"), 32, 500, 100, 10)
        call += ["--data.dataset.root", "few"]
    if kind == "CIFAR10N":
        true = np.arange(500) % 10
        np.savez("few/cifar10/human_labels.npz", clean_label=true, aggre_label=np.where(np.arange(500) < 100, 9 - true, true))
    if "noise_fractions" in settings:
        call += ["--noise_fractions", "[0.1, 0.2]", "--epochs", "[1, 2]"]
    if kind in ("MNIST", "FashionMNIST"):
        call += ["--data.dataset.root", root_of(kind)]
    if "rules" in settings:
        # Those that look at an original come last.
        detected = [rule for rule in settings["rules"] if rule["class_path"] == "DetectedMislabels"]
        call += ["--rules", str([*settings["rules"][:1], *detected[:1]])]
    assert main(call) == 0
    assert Path("runs/benchmark/report.html").is_file()
