"""Weights in 8 bits: what they know, the file that holds them, and what the card says."""

import copy
import os
import re
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.export.export import export
from lightning_unlearn.export.int8_check import check_int8
from lightning_unlearn.export.model_card import int8_remark
from lightning_unlearn.functional.quantise import dequantise_weights, quantise_weights
from lightning_unlearn.metrics.forget_unseen import forget_against_unseen
from lightning_unlearn.networks import ResNet
from tests.export.test_export import READER, settings, train_a_little

NAMES = ["forget/acc", "unseen/acc", "retain/acc", "test/acc"]
AUC = ["forget_unseen/auc", "forget_unseen/auc/low", "forget_unseen/auc/high"]


def test_figures_before_and_after_are_those_of_the_two_models(memorising, fresh):
    model, data = memorising
    # One weight of each row that is so large that rounding takes the others with it: the figures then differ on any machine.
    model = copy.deepcopy(model)
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.dim() > 1):
            weight.flatten(1)[:, 0] = 50 * weight.abs().max()
    figures = check_int8(fresh, model, data)
    assert list(figures) == [*NAMES, *AUC]
    rounded = copy.deepcopy(model)
    rounded.load_state_dict(dequantise_weights(quantise_weights(model.state_dict())))
    for i, network in enumerate((model, rounded)):
        outputs = collect_outputs(fresh, network, data)
        for part in ("forget", "unseen", "retain", "test"):
            assert figures[f"{part}/acc"][i] == 100 * outputs[part].accuracy
        assert figures["forget_unseen/auc"][i] == forget_against_unseen(outputs["forget"], outputs["unseen"]).value
    assert figures["forget_unseen/auc"][0] != figures["forget_unseen/auc"][1]


def test_parts_without_samples_are_left_out(trained, make_data, fresh):
    assert list(check_int8(fresh, trained, make_data(forget=None))) == NAMES[1:]


def test_broken_weights_are_refused(trained, make_data, fresh):
    with torch.no_grad():
        trained.network.fc.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        check_int8(fresh, trained, make_data())


@pytest.mark.parametrize(
    ("after", "words"), [(0.52, "inside the interval 0.450 to 0.550"), (0.7, "know more"), (0.3, "less certain")]
)
def test_the_remark(after, words):
    figures = {"forget_unseen/auc": (0.5, after), "forget_unseen/auc/low": (0.45, 0), "forget_unseen/auc/high": (0.55, 1)}
    assert words in int8_remark(figures)
    assert "nothing is said" in int8_remark({"test/acc": (90.0, 89.0)})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    arguments = settings("lightning_unlearn.networks.ResNet", (1, 16, 16), blocks=(1, 2))
    network = train_a_little(ResNet(num_classes=5, in_chans=1, blocks=(1, 2)), (1, 16, 16)).eval()
    figures = {"test/acc": (90.2, 89.7), "forget_unseen/auc": (0.5, 0.51)}
    figures |= {"forget_unseen/auc/low": (0.4, 0.41), "forget_unseen/auc/high": (0.6, 0.61)}
    folder = tmp_path_factory.mktemp("int8") / "model"
    return export(network, folder, **arguments, int8=figures), network, arguments


def test_the_lines_of_the_card_load_the_int8_weights_without_this_package(exported, tmp_path):
    folder, network, _ = exported
    code = "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL))
    assert code.count("load_state_dict") == 2
    x = torch.randn(3, 1, 16, 16)
    safetensors.torch.save_file({"x": x}, tmp_path / "x")
    script = READER.format(code=code, inputs=str(tmp_path / "x"), outputs=str(tmp_path / "y"))
    subprocess.run([sys.executable, "-I", "-B", "-c", script], cwd=folder, check=True, env={**os.environ})
    rounded = copy.deepcopy(network)
    rounded.load_state_dict(dequantise_weights(quantise_weights(network.state_dict())))
    found = safetensors.torch.load_file(tmp_path / "y")["y"]
    with torch.inference_mode():
        assert torch.equal(found, rounded(x))
        assert not torch.equal(found, network(x))


def test_the_file_and_the_card(exported):
    folder, network, _ = exported
    stored = safetensors.torch.load_file(folder / "model.int8.safetensors")
    kernels = [name for name, value in network.state_dict().items() if value.dim() > 1]
    assert {name for name, value in stored.items() if value.dtype == torch.int8} == set(kernels)
    assert stored.keys() == {*network.state_dict(), *(f"{name}.scale" for name in kernels)}
    full, small = ((folder / name).stat().st_size for name in ("model.safetensors", "model.int8.safetensors"))
    card = (folder / "README.md").read_text()
    assert f"in {100 * small / full:.0f} % of the bytes" in card
    assert "| Test accuracy | 90.2 | 89.7 |" in card
    assert "| Forgotten against unseen: rank AUC | 0.500 | 0.510 |" in card
    assert "inside the interval" in card


def test_an_export_without_them_removes_the_earlier_ones(exported):
    folder, network, arguments = exported
    export(network, folder, **arguments, overwrite=True)
    assert not (folder / "model.int8.safetensors").exists()
    assert "Int8" not in (folder / "README.md").read_text()
