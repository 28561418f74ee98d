"""A LightningModule of the user's own, from its fit to an export."""

import csv
import io
import json
import re

import pytest

from lightning_unlearn.cli import main
from tests.cli.conftest import UNLEARN
from tests.cli.test_errors import refused

NET = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        self.c1 = nn.Conv2d(in_chans, 4, 3)
        self.head = nn.Linear(144, num_classes)

    def forward(self, x):
        return self.head(self.c1(x).relu().flatten(1))
"""
LIT = """\
import torch
from lightning.pytorch import LightningModule
from torch.nn.functional import cross_entropy

from own_net import Net


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch.input), batch.target)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.fixture
def own(empty, monkeypatch):
    """Configs and the user's files in the current directory, and a fit of the user's module in `runs/fit/1`."""
    (empty / "own_net.py").write_text(NET)
    (empty / "own_lit.py").write_text(LIT)
    text = (empty / "base.yaml").read_text()
    (empty / "base.yaml").write_text(text[: text.index("model:")] + text[text.index("trainer:") :])
    monkeypatch.syspath_prepend(empty)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return empty


def test_its_checkpoint_goes_on_with_the_network_alone_and_is_exported(own, capsys):
    assert main(["fit", "-c", "base.yaml", "--model", "own_lit.Lit", "--trainer.max_epochs", "2"]) == 0
    said = capsys.readouterr()
    losses = [float(loss) for loss in re.findall(r"epoch ./2  train/loss ([\d.]+)  \(", said.err)]
    assert len(losses) == 2
    assert 0 < losses[1] < losses[0] < 4
    # The line of the last epoch says it.
    assert "train/loss" not in said.out
    assert "note: Lit has no validation_step, so nothing is measured on unseen samples while it trains." in said.err
    assert "val_dataloader" not in said.err
    assert main(["export", "runs/fit/1", "--output", "exported"]) == 2
    assert "run unlearn with --model.network file.Class and the same checkpoint" in capsys.readouterr().err
    assert main([*UNLEARN, "--model.network", "own_net.Net"]) == 0
    # How long retraining would take is not known.
    row = list(csv.DictReader(io.StringIO((own / "runs/unlearn/1/report.csv").read_text())))[-1]
    assert (row["stages_share"], float(row["stages_work"]) > 0) == ("", True)
    page = (own / "runs/unlearn/1/report.html").read_text()
    assert "For the share of retraining give --retrain_epochs N" in page
    assert main(["report", "runs/unlearn/1"]) == 0
    assert main(["export", "runs/unlearn/1", "--output", "exported"]) == 0
    assert json.loads((own / "exported/config.json").read_text())["architecture"] == "modeling.Net"


def test_what_is_said_where_module_and_network_are_mixed_up(own, capsys):
    fit = ["fit", "-c", "base.yaml", "--trainer.max_epochs", "1"]
    refused(capsys, [*fit, "--model", "own_net.Net"], "own_net.Net is no Light.*as --model.network own_net.Net.$", own)
    remedy = "Lit has no argument 'network'. It has its own network; --model Classifier beside --model.network takes another.$"
    refused(capsys, [*fit, "--model", "own_lit.Lit", "--model.network", "own_net.Net"], remedy, own)


def test_a_module_that_is_frozen_as_a_whole_is_not_trained(own, capsys):
    (own / "own_frozen.py").write_text(LIT.replace("self.net = Net()", "self.net = Net().requires_grad_(False)"))
    refused(
        capsys,
        ["fit", "-c", "base.yaml", "--trainer.max_epochs", "1", "--model", "own_frozen.Lit"],
        "every parameter of Lit is frozen. Unfreeze",
        own,
    )
