"""Checkpoints: written whole, read without running anything, loaded strictly."""

import copy
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import lightning
import numpy as np
import pytest
import safetensors.torch
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.networks import MLP, ResNet, SmallCNN
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO, load_into, read_weights, save_weights


class Evil:
    """A pickle that makes a folder when it is restored."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class Tiny(LightningModule):
    def __init__(self, width: int = 4, rate: float = 0.1, extra: object = None):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=4)


def fit(model, folder, epochs, ckpt_path=None, callbacks=()):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, monitor="loss"), *callbacks],
    )
    trainer.fit(model, loader(), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def weights():
    torch.manual_seed(1)
    return SmallCNN(num_classes=3).state_dict()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_reads_dicts_of_both_formats(tmp_path, weights, key, legacy):
    content = weights if key is None else {key: weights, "epoch": 3, "hyper_parameters": {"a": 1}}
    torch.save(content, tmp_path / "w.th", _use_new_zipfile_serialization=not legacy)
    state, hyper = read_weights(str(tmp_path / "w.th"))
    assert equal(state, weights)
    assert hyper == ({} if key is None else {"a": 1})


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_reads_safetensors_by_content(tmp_path, weights, name):
    safetensors.torch.save_file(weights, tmp_path / name)
    state, hyper = read_weights(tmp_path / name)
    assert equal(state, weights)
    assert hyper == {}


def test_notes_of_the_command_line_are_dropped(tmp_path, weights):
    torch.save({"state_dict": weights, "hyper_parameters": {"a": 1, "_instantiator": "os.system"}}, tmp_path / "w")
    assert read_weights(tmp_path / "w")[1] == {"a": 1}


def test_parameters_and_optimiser_beside_them_do_not_matter(tmp_path):
    model = nn.Linear(2, 2)
    torch.save({"model": OrderedDict(model.named_parameters()), "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    state, _ = read_weights(tmp_path / "w.pt")
    assert not any(tensor.requires_grad for tensor in state.values())
    assert equal(state, {name: value.detach() for name, value in model.named_parameters()})


def test_saved_weights_load_in_lightning_and_only_plain_values_stay(tmp_path):
    model = Tiny(5, 0.2)
    hyper = {
        "width": np.int64(5),
        "rate": np.float64(0.2),
        "extra": [Path("a/b"), ("x", None), {"k": True}],
        "loss": nn.ReLU(),
        "_instantiator": "module",
    }
    path = tmp_path / "new" / "w.ckpt"
    with pytest.warns(UserWarning, match=r"not saved: loss \(ReLU\)"):
        save_weights(path, model.state_dict(), hyper)
    raw = torch.load(path, weights_only=True)
    assert set(raw) == {"state_dict", "pytorch-lightning_version", "hyper_parameters", "epoch", "global_step"}
    assert "_instantiator" not in raw["hyper_parameters"]
    assert raw["pytorch-lightning_version"] == lightning.__version__
    state, read = read_weights(path)
    assert equal(state, model.state_dict())
    assert read == {"width": 5, "rate": 0.2, "extra": ["a/b", ("x", None), {"k": True}]}
    assert type(read["width"]) is int
    assert type(read["rate"]) is float
    again = Tiny.load_from_checkpoint(path, weights_only=True, strict=True, map_location="cpu")
    assert equal(again.state_dict(), model.state_dict())
    assert again.hparams.width == 5


def test_a_view_saves_its_own_elements_only(tmp_path):
    big = torch.arange(1_000_000.0)
    save_weights(tmp_path / "w.ckpt", {"w": big[:10]}, {})
    assert (tmp_path / "w.ckpt").stat().st_size < 10_000
    assert torch.equal(read_weights(tmp_path / "w.ckpt")[0]["w"], big[:10])


def test_missing_folder_url_and_unreadable(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist; needed: a checkpoint file\. Check the path"):
        read_weights(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"is a folder; needed: a checkpoint file\. Name the file in it"):
        read_weights(tmp_path)
    for call in (read_weights, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match=r"is a URL; needed: a local file\. Download it"):
            call("https://example.org/w.ckpt")
    with pytest.raises(CheckpointError, match="is a URL"):
        AtomicCheckpointIO().save_checkpoint({}, "s3://bucket/w.ckpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\).*its save did not end"),
        (
            b"<!DOCTYPE html><html>not found</html>",
            r"is not a checkpoint; needed: a file of torch\.save or safetensors",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Run `git lfs pull`"),
        (b"PK\x03\x04" + bytes(100), "cut short or damaged"),
        (b"\x80\x02" + bytes(100), "cut short or damaged"),
        (b"\xff" * 8 + b"{" + bytes(100), "cut short or damaged"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, message):
    (tmp_path / "w.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "w.ckpt")


def save_as(kind, weights, path):
    if kind == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere(tmp_path, weights, kind):
    path = tmp_path / "w.ckpt"
    data = save_as(kind, weights, path)
    draw = random.Random(0)
    for length in [1, 8, 9, len(data) - 1, *(draw.randrange(1, len(data)) for _ in range(30))]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"w\.ckpt (cannot be read: it is cut short|is not a checkpoint)"):
            read_weights(path)


def test_a_flipped_bit_is_found_or_harmless(tmp_path, weights):
    """A zip has checksums, which torch.load does not look at; the other formats have none."""
    path = tmp_path / "w.ckpt"
    data = save_as("zip", weights, path)
    draw, found, unseen_by_torch = random.Random(0), 0, 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert equal(read_weights(path)[0], weights)
        except CheckpointError:
            found += 1
            try:
                torch.load(path, weights_only=True)
                unseen_by_torch += 1
            except Exception:
                pass
    assert found > 100
    assert unseen_by_torch > 50


def test_a_file_saved_without_checksums_loads(tmp_path, weights):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert {member.CRC for member in zipfile.ZipFile(tmp_path / "w.pt").infolist()} == {0}
    assert equal(read_weights(tmp_path / "w.pt")[0], weights)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "hyper_parameters"])
def test_a_malicious_pickle_runs_nothing(tmp_path, weights, kind):
    path, trace = tmp_path / "w.ckpt", tmp_path / "executed"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(str(trace)), protocol=2))
    elif kind == "hyper_parameters":
        torch.save({"state_dict": weights, "hyper_parameters": {"x": Evil(str(trace))}}, path)
    else:
        torch.save({**weights, "x": Evil(str(trace))}, path, _use_new_zipfile_serialization=kind == "zip")
    # `weights_only=False` in the caller's hands changes nothing.
    for call in (read_weights, lambda p: AtomicCheckpointIO().load_checkpoint(p, weights_only=False)):
        with pytest.raises(CheckpointError, match=r"cannot be read|holds the Python object (posix|nt)\.mkdir.*nothing was"):
            call(path)
    assert not trace.exists()
    if kind != "pickle":
        torch.load(path, weights_only=False)
        assert trace.exists(), "the attack itself must work, else this test shows nothing"


def test_a_whole_module_is_refused_with_the_remedy(tmp_path):
    torch.save(SmallCNN(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"networks\.SmallCNN.*If you trust the file.*save model\.state_dict\(\)"):
        read_weights(tmp_path / "w.pt")


# Newer torch warns that TorchScript is on its way out; such files still exist.
@pytest.mark.filterwarnings("ignore:.*`torch.jit:FutureWarning", "ignore:.*`torch.jit:DeprecationWarning")
def test_torchscript_is_named(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "holds a Tensor; needed: tensors by name"),
        ([1, 2], "holds a list"),
        ({}, "it is empty"),
        ({"epoch": 3, "weights": {"a": torch.ones(1)}}, "instead of tensors by name it has epoch, weights"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, "instead of tensors by name it has b"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("theirs", ["", "module.", "network.", "model.", "classifier.", "_orig_mod.", "module.model."])
@pytest.mark.parametrize("ours", ["", "network.", "module._orig_mod."])
def test_prefixes_of_wrappers(theirs, ours):
    source, inner = SmallCNN(), SmallCNN()
    model = inner
    for name in reversed([part for part in ours.split(".") if part]):
        model = nn.ModuleDict({name: model})
    load_into(model, {theirs + name: value for name, value in source.state_dict().items()}, "x")
    assert equal(inner.state_dict(), source.state_dict())


@pytest.mark.parametrize(("theirs", "ours"), [("net.", ""), ("net.", "network."), ("", "body."), ("module.net.", "model.")])
def test_one_prefix_of_the_users_own(theirs, ours):
    source, inner = SmallCNN(), SmallCNN()
    model = nn.ModuleDict({ours.removesuffix("."): inner}) if ours else inner
    state = {theirs + name: value for name, value in source.state_dict().items()}
    load_into(model, state, "x")
    assert equal(inner.state_dict(), source.state_dict())
    # Only where everything else matches.
    name, value = state.popitem()
    for other in ({**state}, {**state, f"other.{name}": value}):
        with pytest.raises(CheckpointError, match="of another architecture"):
            load_into(model, other, "x")


def test_compiled_part_inside_a_module():
    source, model = Tiny(), Tiny()
    state = {name.replace("network.", "network._orig_mod."): value for name, value in source.state_dict().items()}
    load_into(model, state, "x")
    assert equal(model.state_dict(), source.state_dict())


def test_counters_of_old_checkpoints_may_lack_but_nothing_else():
    source, model = ResNet(), ResNet()
    old = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    load_into(model, old, "x")
    assert equal(model.state_dict(), source.state_dict())
    old.pop("bn1.running_mean")
    with pytest.raises(CheckpointError, match=r"it lacks bn1\.running_mean\. "):
        load_into(model, old, "x")


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        (
            SmallCNN(num_classes=10),
            SmallCNN(num_classes=100),
            r"head of another size: checkpoint has 100 classes, the model 10 \(fc\.weight\).*num_classes=100",
        ),
        (ResNet(in_chans=3), ResNet(in_chans=1), r"takes images of 1 channels, the model 3.*in_chans=1"),
        (
            ResNet(width=8),
            ResNet(width=16),
            r"other shapes: conv1\.weight \(16, 3, 3, 3\) for \(8, 3, 3, 3\), .* more",
        ),
        (
            MLP(hidden=(32,)),
            MLP(hidden=(64,)),
            r"other shapes: layers\.0\.0\.weight \(64, 64\) for \(32, 64\)",
        ),
        (
            SmallCNN(),
            MLP(),
            r"^a\.ckpt is of another architecture than SmallCNN: it lacks features\.0\.weight, .* more\. "
            r"The model does not have layers\.0\.0\.weight, .* Give the network",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(model, source, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_into(model, source.state_dict(), "a.ckpt")
    assert equal(model.state_dict(), before)


def test_non_finite_weights_are_refused():
    model, state = SmallCNN(), SmallCNN().state_dict()
    state["fc.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights in fc\.bias"):
        load_into(model, state, "x")


@pytest.mark.parametrize(("theirs", "ours"), [("network.", "network."), ("network.", ""), ("", "network."), ("", "")])
def test_one_name_too_many_is_named_alone(theirs, ours):
    model = nn.ModuleDict({"network": SmallCNN()}) if ours else SmallCNN()
    state = {theirs + name: value for name, value in SmallCNN().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"than \w+: The model does not have extra\.weight\. Needed"):
        load_into(model, {**state, "extra.weight": torch.zeros(1)}, "x")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused_and_not_cast(kind):
    model, source = ResNet(), ResNet()
    before = copy.deepcopy(model.state_dict())
    state = {name: value.to(kind) if value.is_floating_point() else value for name, value in source.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"no floating-point weights in conv1\.weight \({kind}\), .* more, where ResNet"):
        load_into(model, state, "x")
    assert equal(model.state_dict(), before)
    load_into(model, {name: value.half() for name, value in source.state_dict().items()}, "x")


def test_parameters_without_a_shape_are_named():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    state = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).state_dict()
    with pytest.raises(CheckpointError, match=r"shape is not known yet: 1\.weight, 1\.bias\. .* call the model once"):
        load_into(model, state, "x")


# A resumed run saves into the folder that it was resumed from.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_training_is_resumed_through_the_plugin_and_every_file_is_safe(tmp_path):
    torch.manual_seed(0)
    start = Tiny().state_dict()
    whole, half, resumed = Tiny(), Tiny(), Tiny()
    whole.load_state_dict(start)
    half.load_state_dict(start)
    fit(whole, tmp_path / "whole", 4)
    fit(half, tmp_path / "half", 2)
    for file in (tmp_path / "half").glob("*.ckpt"):
        assert equal(read_weights(file)[0], torch.load(file, weights_only=True)["state_dict"])
    trainer = fit(resumed, tmp_path / "half", 4, ckpt_path=tmp_path / "half" / "epoch=1.ckpt")
    assert trainer.global_step == 16
    assert equal(resumed.state_dict(), whole.state_dict())
    names = {path.name for path in (tmp_path / "half").iterdir()}
    assert names == {f"epoch={i}.ckpt" for i in range(4)}


def test_hyper_parameters_that_are_objects_are_left_out(tmp_path):
    model = Tiny(extra=nn.functional.relu)
    with pytest.warns(UserWarning, match=r"not saved: extra \(function\)"):
        fit(model, tmp_path, 1)
    assert read_weights(tmp_path / "epoch=0.ckpt")[1] == {"width": 4, "rate": 0.1}


def test_a_state_that_could_not_be_resumed_is_refused_when_it_is_saved(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"path": Path("x")}

    with pytest.raises(CheckpointError, match=r"epoch=0\.ckpt was not saved: the state holds pathlib\."):
        fit(Tiny(), tmp_path, 1, callbacks=[Odd()])
    assert list(tmp_path.iterdir()) == []


def test_resume_names_what_is_wrong(tmp_path):
    run = tmp_path / "run"
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        fit(Tiny(), run, 1, ckpt_path=tmp_path / "torn.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        fit(Tiny(), run, 1, ckpt_path=tmp_path / "none.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="holds a list; needed: a checkpoint that a Trainer saved"):
        fit(Tiny(), run, 1, ckpt_path=tmp_path / "list.ckpt")


def published_files():
    data, checkpoints = (
        os.environ.get("LIGHTNING_UNLEARN_DATA"),
        os.environ.get("LIGHTNING_UNLEARN_CHECKPOINTS"),
    )
    paths = Path(data or "") / "cifar10" / "test.npz", Path(checkpoints or "") / "resnet20-12fca82f.th"
    if not (data and checkpoints and all(path.is_file() for path in paths)):
        pytest.skip("LIGHTNING_UNLEARN_DATA (cifar10) and LIGHTNING_UNLEARN_CHECKPOINTS (ResNet-20) are needed")
    return paths


@pytest.mark.slow
def test_published_resnet20_has_its_published_error():
    """8.27 % on CIFAR-10 (Idelbayev's reproduction of He et al.)."""
    images, checkpoint = published_files()
    model = ResNet(blocks=(3, 3, 3), shortcut="pad")
    load_into(model, read_weights(checkpoint)[0], str(checkpoint))
    with np.load(images) as arrays:
        x, y = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wrong = 0
    model.eval()
    with torch.inference_mode():
        for images, labels in zip(x.split(500), y.split(500), strict=True):
            normalised = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
            wrong += int((model(normalised).argmax(1) != labels).sum())
    assert wrong / len(y) * 100 == pytest.approx(8.27, abs=0.05)
