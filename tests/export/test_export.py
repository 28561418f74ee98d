"""Exports that others load without this package."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from lightning_unlearn.classifier import build_network
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.export.export import export
from lightning_unlearn.networks import ResNet, SmallCNN
from lightning_unlearn.report.schema import Report, Request, Row

CLASSES = ["cat", "dog", "<b>\n‮", "d", "e"]
# A fresh process that cannot import this package runs the card's lines and keeps the outputs.
READER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning_unlearn", "lightning"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, ".")
{code}
import torch
from safetensors.torch import load_file, save_file
x = load_file({inputs!r})["x"]
with torch.inference_mode():
    save_file({{"y": network(x)}}, {outputs!r})
assert not any(name.startswith("lightning_unlearn") for name in sys.modules)
"""


def train_a_little(network, size):
    """Move the weights and BatchNorm's statistics away from what a fresh network has."""
    torch.manual_seed(3)
    network.train()
    for _ in range(2):
        network(torch.randn(8, *size) + 0.3).square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.05 * parameter.grad
    return network


def settings(architecture, size, **arguments):
    return {
        "architecture": architecture,
        "arguments": arguments,
        "num_classes": 5,
        "classes": CLASSES,
        "mean": [0.4, 0.5, 0.6][: size[0]],
        "std": [0.2, 0.21, 0.22][: size[0]],
        "input_size": size,
    }


CASES = {
    "timm": (lambda: timm.create_model("resnet10t", num_classes=5), settings("resnet10t", (3, 64, 64))),
    "timm vit": (
        lambda: timm.create_model("test_vit", num_classes=5, img_size=64, in_chans=1, global_pool="avg"),
        settings("test_vit", (1, 64, 64), img_size=64, global_pool="avg"),
    ),
    "timm, small stem": (
        lambda: build_network("resnet18", 5, 3, {}, small_image_stem=True),
        settings("resnet18", (3, 32, 32)),
    ),
    "class path": (
        lambda: ResNet(num_classes=5, in_chans=1, blocks=(1, 2), norm="group", shortcut="pad"),
        settings("lightning_unlearn.networks.ResNet", (1, 16, 16), blocks=(1, 2), norm="group", shortcut="pad"),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    make, arguments = CASES[request.param]
    network = train_a_little(make(), arguments["input_size"])
    folder = export(network, tmp_path_factory.mktemp("export") / "model", **arguments)
    x = torch.randn(3, *arguments["input_size"])
    with torch.inference_mode():
        return request.param, folder, network.eval(), x


def code_of(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_lines_of_the_card_rebuild_it_bit_for_bit_without_this_package(exported, tmp_path):
    _, folder, network, x = exported
    safetensors.torch.save_file({"x": x}, tmp_path / "x")
    script = READER.format(code=code_of(folder), inputs=str(tmp_path / "x"), outputs=str(tmp_path / "y"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-I", "-B", "-c", script], cwd=folder, check=True, env=environment)
    with torch.inference_mode():
        assert torch.equal(safetensors.torch.load_file(tmp_path / "y")["y"], network(x))


def test_config_and_files(exported):
    name, folder, network, _ = exported
    config = json.loads((folder / "config.json").read_text())
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 5
    assert config["pretrained_cfg"]["label_names"] == CLASSES
    assert config["pretrained_cfg"]["input_size"][0] == len(config["pretrained_cfg"]["mean"])
    files = {"model.safetensors", "config.json", "README.md"} | ({"modeling.py"} if name == "class path" else set())
    assert {path.name for path in folder.iterdir()} == files
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert state.keys() == network.state_dict().keys()


def test_timm_knows_the_classes_and_the_normalisation(exported):
    name, folder, network, x = exported
    source = f"local-dir:{folder}"
    if name in ("timm", "timm vit"):
        loaded = timm.create_model(source, pretrained=True).eval()
        with torch.inference_mode():
            assert torch.equal(loaded(x), network(x))
        data = timm.data.resolve_model_data_config(loaded)
        assert tuple(data["mean"]) == tuple(CASES[name][1]["mean"])
        assert tuple(data["std"]) == tuple(CASES[name][1]["std"])
        assert tuple(data["input_size"]) == CASES[name][1]["input_size"]
        assert list(loaded.pretrained_cfg["label_names"]) == CLASSES
    else:
        # A network that timm would build in another way must not load by accident.
        with pytest.raises(RuntimeError, match="Unknown model"):
            timm.create_model(source, pretrained=True)


def test_the_network_stays_as_it_was(tmp_path):
    network = train_a_little(SmallCNN(num_classes=5), (1, 8, 8)).to(memory_format=torch.channels_last)
    network.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export(network, tmp_path / "m", **settings("lightning_unlearn.networks.SmallCNN", (1, 8, 8)))
    assert network.training
    assert not network.fc.weight.requires_grad
    assert network.features[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_tied_weights_are_written_twice(tmp_path):
    network = ResNet(num_classes=5, blocks=(2,))
    network.layer1[1].conv1.weight = network.layer1[0].conv1.weight
    export(network, tmp_path / "m", **settings("lightning_unlearn.networks.ResNet", (3, 8, 8), blocks=[2]))
    state = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    assert torch.equal(state["layer1.0.conv1.weight"], state["layer1.1.conv1.weight"])


def test_an_existing_folder_is_kept_unless_allowed(tmp_path):
    folder, own = tmp_path / "m", settings("lightning_unlearn.networks.SmallCNN", (1, 8, 8))
    folder.mkdir()
    export(SmallCNN(num_classes=5), folder, **own)
    (folder / "notes.txt").write_text("mine")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"m is not empty; nothing was written\. Give a new folder, or --overwrite"):
        export(SmallCNN(num_classes=5), folder, **own)
    assert (folder / "model.safetensors").read_bytes() == before
    export(
        timm.create_model("resnet10t", num_classes=5),
        folder,
        overwrite=True,
        **settings("resnet10t", (3, 32, 32)),
    )
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
        "notes.txt",
    }
    with pytest.raises(ConfigError, match="is a file"):
        export(SmallCNN(num_classes=5), folder / "notes.txt", overwrite=True, **own)


def test_only_a_pooling_layer_replaced_is_noticed_too(tmp_path):
    """Such a network has the state dict of the unchanged one, which timm would load and predict wrongly."""
    network = timm.create_model("resnet10t", num_classes=5)
    network.maxpool = nn.Identity()
    export(network, tmp_path / "m", **settings("resnet10t", (3, 32, 32)))
    assert "network.maxpool = nn.Identity()" in code_of(tmp_path / "m")
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)


def broken(network):
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    return network


def swapped(network):
    network.maxpool = nn.Sequential(nn.Identity(), nn.Identity())
    return network


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        (SmallCNN(num_classes=5), {"classes": ["a"]}, "1 class names for 5 classes"),
        (
            SmallCNN(num_classes=5),
            {"mean": [0.1, 0.2]},
            "mean has 2 values; needed: one for each of 1 channels",
        ),
        (SmallCNN(num_classes=5), {"std": [0.0]}, "needed: values above 0"),
        (SmallCNN(num_classes=5), {"input_size": (1, 0, 8)}, "each 1 or more"),
        (SmallCNN(num_classes=5), {"arguments": {"widths": {1, 2}}}, "are not plain"),
        (SmallCNN(num_classes=5), {"arguments": {"depth": 3}}, "refuses its arguments .*depth.* Give those"),
        (SmallCNN(num_classes=5), {"input_size": (1, 12, 12)}, "does not fit the network"),
        (
            SmallCNN(num_classes=5),
            {"architecture": "resnet10t"},
            "network differs from resnet10t in its structure",
        ),
        (SmallCNN(num_classes=5), {"architecture": "lightning_unlearn.networks.MLP"}, "is a SmallCNN, not a"),
        (SmallCNN(num_classes=5), {"architecture": "no_such_network"}, "No architecture 'no_such_network'"),
        (
            SmallCNN(num_classes=5),
            {"architecture": "no.such.Network"},
            "No architecture .*No module named 'no'",
        ),
        (broken(SmallCNN(num_classes=5)), {}, r"NaN or infinite weights in features\.0\.weight"),
        (
            swapped(timm.create_model("resnet10t", num_classes=5, in_chans=1)),
            {"architecture": "resnet10t", "input_size": (1, 32, 32)},
            "differs from resnet10t in maxpool, by other than single torch layers",
        ),
        (
            timm.create_model("resnet10t", num_classes=5, in_chans=1, drop_rate=0.0, global_pool="max"),
            {"architecture": "resnet10t", "input_size": (1, 32, 32), "arguments": {"no_such": 1}},
            "refuses its arguments",
        ),
    ],
)
def test_what_cannot_be_exported_writes_nothing(tmp_path, network, change, message):
    arguments = {**settings("lightning_unlearn.networks.SmallCNN", (1, 8, 8)), **change}
    with pytest.raises(ConfigError, match=message):
        export(network, tmp_path / "m", **arguments)
    assert list(tmp_path.iterdir()) == []


def module(tmp_path, monkeypatch, name, text):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(name)


def test_a_file_with_foreign_imports_is_refused_by_name(tmp_path, monkeypatch):
    found = module(
        tmp_path,
        monkeypatch,
        "foreign_network",
        """
        import math
        import torch.nn as nn
        from numpy import pi

        class Net(nn.Linear):
            def __init__(self, num_classes, in_chans):
                super().__init__(in_chans, num_classes)
        """,
    )
    with pytest.raises(ConfigError, match=r"foreign_network\.py imports numpy, so that Net cannot be built from it"):
        export(found.Net(5, 1), tmp_path / "m", **settings("foreign_network.Net", (1, 8, 8)))
    assert not (tmp_path / "m").exists()


def test_a_module_whose_outputs_differ_when_built_again_is_refused(tmp_path, monkeypatch):
    found = module(
        tmp_path,
        monkeypatch,
        "counting_network",
        """
        from torch import nn

        class Net(nn.Module):
            made = 0
            def __init__(self, num_classes, in_chans):
                super().__init__()
                self.fc = nn.Linear(in_chans * 64, num_classes)
                Net.made += 1
                self.factor = Net.made
            def forward(self, x):
                return self.fc(x.flatten(1)) * self.factor
        """,
    )
    with pytest.raises(ConfigError, match="gives other outputs than the network"):
        export(found.Net(5, 1), tmp_path / "m", **settings("counting_network.Net", (1, 8, 8)))


def test_evidence_from_a_report_or_its_json(tmp_path):
    report = Report(
        kind="unlearn",
        title="t",
        created="2026-01-01T00:00:00",
        goal="untrain",
        tier="screen",
        requests=[Request("random 4 %", "RandomFraction(0.04)", 20, 500, "abc123")],
        rows=[Row("FineTune", "method", "random 4 %", 0, {"forget/acc": 91.25})],
    )
    own = settings("lightning_unlearn.networks.SmallCNN", (1, 8, 8))
    network = SmallCNN(num_classes=5)
    a = export(network, tmp_path / "a", report=report, **own)
    b = export(network, tmp_path / "b", report=json.loads(report.to_json()), **own)
    assert (a / "README.md").read_text() == (b / "README.md").read_text()
    assert "91.2" in (a / "README.md").read_text()
    with pytest.raises(ConfigError, match="report"):
        export(network, tmp_path / "c", report={"nonsense": 1}, **own)
    assert not (tmp_path / "c").exists()
