"""Bad input: one line with cause and remedy, exit code 2, nothing written."""

import errno
import logging

import pytest
import torch
import yaml

from lightning_unlearn.cli import main
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.files import lock_folder
from tests.cli.conftest import CHECKPOINT, UNLEARN

BAD = {
    "stage": (
        {"stages": [{"class_path": "MaskLearnin"}]},
        r"stages: no class is called 'MaskLearnin'. Nearest: 'MaskLearning'. \(bad.yaml, line 2\)",
    ),
    "argument": (
        {"stages": [{"class_path": "FineTune", "init_args": {"max_epoch": 2}}]},
        "FineTune has no argument 'max_epoch'. Nearest: 'max_epochs'",
    ),
    "type": ({"stages": [{"class_path": "FineTune", "init_args": {"max_epochs": "two"}}]}, "max_epochs is 'two'; needed: int"),
    "section": ({"dota": {}}, "unlearn has no argument 'dota', which bad.yaml gives. Nearest: 'data'"),
    "data": ({"data": {"batchsize": 3}}, "no argument 'data.batchsize'. Nearest: 'data.batch_size'"),
    "module": (
        {"data": {"dataset": {"class_path": "no.such.Set"}}},
        r"there is no no.such.Set: No module named 'no'. Searched: this folder \(/.*\) and the installed packages",
    ),
    "attribute": (
        {"model": {"class_path": "Classifier", "init_args": {"optimizer": {"class_path": "torch.optim.SGDD"}}}},
        "Nearest: 'SGD'",
    ),
    "nested": (
        {"model": {"class_path": "Classifier", "init_args": {"optimizer": {"class_path": "SGD", "init_args": {"lrr": 1}}}}},
        "SGD has no argument 'lrr'. Nearest: 'lr'",
    ),
    "choice": ({"goal": "untrian"}, "goal is 'untrian'; needed: untrain, remove-class, repair. Nearest: 'untrain'"),
    "list": ({"stages": "FineTune"}, "bad.yaml: stages is 'FineTune'; needed: a list, each"),
    "dash": ({"stages": {"class_path": "FineTune"}}, "bad.yaml: stages is one stage without a `-` before it; needed: a list"),
    "init_args": (
        {"stages": [{"class_path": "FineTune", "max_epochs": 1}]},
        "has max_epochs beside class_path.*init_args",
    ),
}
TYPED = [
    (["--data.batch_sise", "3"], "no argument --data.batch_sise. Nearest: '--data.batch_size'"),
    (["--trainer.max_epoch", "3"], "no argument --trainer.max_epoch. Nearest: '--trainer.max_epochs'"),
    (["--reference", "[x]"], "Nearest: '--references'"),
    (["--data.forget", "RandomFractoin"], "no class is called 'RandomFractoin'. Nearest: 'RandomFraction'"),
    (["--data.unseen", "half"], "data.unseen: no class is called 'half', nor is it 'half_of_test'."),
    (["--data.forget.fractoin", "1"], "RandomFraction has no argument 'fractoin'. Nearest: 'fraction'"),
    (["--data.forget.fraction", "2"], "fraction is 2.0; needed: above 0"),
    (["--data.batch_size", "x"], "data.batch_size is 'x'; needed: int"),
    (
        ["--data.dataset.mean", "127.5"],
        "mean is 127.5; needed: of pixels in 0 ... 1, so 1 at most. For pixels in 0 ... 255 that is 0.5.$",
    ),
    (["--data.dataset.std", "[51]"], r"std is \[51.0\]; needed: .* that is 0.2.$"),
    (["--data.batch_size", "0"], "batch_size is 0; needed"),
    (["--data.forget", "WholeClasses", "--data.forget.classes", "3"], r"classes is '3'; needed: list, such as \[3\]\.$"),
    (["--data.dataset", "CIFAR10"], "root of CIFAR10 must be given"),
    (["--data.dataset", "CIFAR10", "--data.dataset.root", "nowhere"], "its files must lie in nowhere"),
    (["--model.network", "SmalCNN"], "Nearest: 'SmallCNN'"),
    (["--trainer.accelerator", "tqu"], "accelerator='tqu'"),
    (["--trainer.strategy", "fsdp"], "fsdp"),
    (["--relearn_epochs"], "--relearn_epochs: expected one argument"),
    (["--stages.0.max_epochs", "1"], "single stages have no argument on the command line. What works: print the whole config"),
    (["--stages[0].max_epochs", "1"], "single stages have no argument on the command line"),
    (["stray"], "'stray' belongs to no argument"),
    (["-c", "methods.yaml"], "error: No such file: methods.yaml. Nearest here: method.yaml.$"),
    (["-c", "nowhere/method.yml"], "No such file: nowhere/method.yml. There is no folder nowhere.$"),
    (["-c", "zzzzzz"], "nor a shipped name. lightning-unlearn fit --help lists the shipped names.$"),
    (["--references", "[a.ckpt,", "b.ckpt]"], r'shell cut at a space. Put quotes around it: --references "\[a.ckpt, b.ckpt\]"'),
    (["--data.forget.classes=[1,", "2]", "--goal", "untrain"], r'Put quotes around it: --data.forget.classes "\[1, 2\]"'),
    (["-c", "method/fine_tun"], "Nearest shipped name: 'method/fine_tune'"),
    (["--checkpoint", "no.ckpt"], "no.ckpt cannot be read"),
    (["--checkpoint", "base.yaml"], "base.yaml"),
]


def refused(capsys, arguments, message, tree):
    before = sorted(tree.rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    import re

    assert re.search(message, error), error
    assert sorted(tree.rglob("*")) == before


@pytest.mark.parametrize("name", BAD)
def test_bad_configs(work, capsys, name):
    content, message = BAD[name]
    (work / "bad.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    refused(capsys, [*UNLEARN, "-c", "bad.yaml"], message, work)


@pytest.mark.parametrize(("extra", "message"), TYPED, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_arguments(work, capsys, extra, message):
    refused(capsys, [*UNLEARN, *extra], message, work)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["purge", "--y"], "purge has no argument --y. Nearest: '--yes'.$"),
        (["report", "runs/fit/1", "--verfy"], "report has no argument --verfy. Nearest: '--verify'.$"),
        (["export", "runs/fit/1", "--outptu=x"], "export has no argument --outptu. Nearest: '--output'.$"),
        (
            [*UNLEARN[:5], *UNLEARN[9:], "--run", "runs/fit"],
            "runs/fit is no run: it holds 1. Give one of them, such as",
        ),
        (["fit", "--resume", "runs/fit"], "it holds 1. Give one of them, such as runs/fit/1.$"),
    ],
)
def test_slips_of_commands_and_runs(work, capsys, call, message):
    refused(capsys, call, message, work)


def test_a_misspelt_file_of_a_method(work, capsys):
    call = ["benchmark", "-c", "base.yaml", "--trainer.max_epochs", "1", *UNLEARN[9:]]
    for methods in ("[method.yml, fine_tune]", "method.yml,fine_tune"):
        refused(capsys, [*call, "--methods", methods], "No such file: method.yml. Nearest here: method.yaml.$", work)


def test_what_is_missing(work, capsys):
    refused(capsys, ["unlearn"], "data.dataset, stages must be given. Give -c data/digits", work)
    refused(capsys, ["fit", "-c", "base.yaml"], "--trainer.max_epochs", work)
    refused(capsys, ["unlearn", "-c", "base.yaml", "-c", "method.yaml", *UNLEARN[9:]], "needs a trained model", work)
    refused(capsys, [*UNLEARN[:9]], "no forget rule", work)
    refused(capsys, ["evaluate", "--run", "runs/fit/9"], "is no run", work)
    refused(capsys, ["unlearn", "--resume", "runs/fit/9"], "is no run", work)
    refused(capsys, ["report", "nowhere"], "no report.json", work)
    refused(capsys, ["export", "runs/fit/1"], "--output", work)
    refused(capsys, ["validate", "-c", "base.yaml", "--checkpoint", CHECKPOINT, "--data.unseen", "0"], "unseen", work)


def test_a_checkpoint_of_another_architecture(work, capsys):
    refused(capsys, [*UNLEARN, "--model.network_args", "{widths: [8, 8]}"], "does not fit", work)
    refused(capsys, [*UNLEARN, "--model.network", "MLP"], "of another architecture", work)


def test_a_head_of_another_size(work, capsys):
    (work / "head.py").write_text(
        "from lightning.pytorch import LightningModule\nfrom torch import nn\n\n\n"
        "class Three(LightningModule):\n    def __init__(self):\n        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n\n"
        "    def forward(self, x):\n        return self.net(x)\n"
    )
    # The class has no num_classes, so the link from the data finds nothing, silently.
    message = r"\(2, 3\) and the data have 10 classes"
    call = ["unlearn", "-c", "base.yaml", "-c", "method.yaml", *UNLEARN[9:], "--model", "head.Three", "--checkpoint", "none"]
    refused(capsys, call, message, work)


def test_a_folder_in_use(work, capsys):
    with lock_folder(work / "runs/fit/1"):
        assert main(["fit", "--resume", "runs/fit/1"]) == 2
    assert "in use by process" in capsys.readouterr().err


def test_debug_shows_where_it_comes_from(work, capsys):
    assert main([*UNLEARN, "--goal", "x", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 2, "Lower --data.batch_size"),
        (
            OSError(errno.ENOSPC, "No space left on device", "metrics.csv"),
            2,
            "metrics.csv: No space left on device; free space",
        ),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:534] Read error [127.0.0.1]:1234: Connection closed by peer"),
            2,
            "by peer. Another process of this run has ended: it was killed, or what it said stands above. What is finished is "
            "kept: the same call with --resume and the run's folder goes on",
        ),
        (KeyError("oops"), 1, "unexpected KeyError"),
    ],
)
def test_errors_of_the_machine_and_of_the_program(work, capsys, monkeypatch, error, code, message):
    from lightning_unlearn.cli import verbs

    def broken(job):
        raise error

    monkeypatch.setitem(verbs.VERBS, "fit", broken)
    assert main(["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]) == code
    assert message in capsys.readouterr().err
    assert not (work / "runs/fit/2").exists()


class Broken(torch.utils.data.Dataset):
    """Raises an error from another one."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error from OSError("cut short")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a.png cannot be read\nas an image; replace it."), 2, "a.png cannot be read as an image; replace it."),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a.png"),
            2,
            "[Errno 2] No such file: 'a.png'; check the path, the disk and its permissions.",
        ),
        (KeyError("a"), 1, "unexpected KeyError: 'a' (--debug shows where it comes from)"),
        # Torch cannot make another one of this kind.
        (
            UnicodeDecodeError("ascii", b"x", 0, 1, "bad"),
            1,
            "unexpected UnicodeDecodeError: 'ascii' codec can't decode byte 0x78 in position 0: bad (--debug",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_a_loaders_worker_come_without_its_traceback(work, capsys, monkeypatch, error, code, line):
    from lightning_unlearn.cli import verbs

    loader = torch.utils.data.DataLoader(Broken(error), num_workers=1)
    monkeypatch.setitem(verbs.VERBS, "fit", lambda job: next(iter(loader)))
    call = ["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]
    assert main(call) == code
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert main([*call, "--debug"]) == code
    assert "in __getitem__" in capsys.readouterr().err


def test_a_norm_over_a_batch_of_one_sample_is_named(work, capsys, monkeypatch):
    from lightning_unlearn.cli import verbs

    monkeypatch.setitem(verbs.VERBS, "fit", lambda job: torch.nn.BatchNorm1d(2)(torch.zeros(1, 2)))
    assert main(["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]) == 2
    assert "A batch of one sample went through a norm that takes mean and variance over the batch" in capsys.readouterr().err


def test_nothing_of_a_call_stays_behind(work):
    level = logging.getLogger("lightning.pytorch").level
    assert main(["fit"]) == 2
    assert logging.getLogger("lightning.pytorch").level == level
    assert not logging.getLogger("lightning_unlearn").handlers
