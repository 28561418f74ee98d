"""Unlearning and judging from start to end, with a stage and a network of a user's own."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd, untrained
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from timm import create_model
from torch import nn

from lightning_unlearn.callbacks.select_by_unseen import SelectByUnseen
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError, CheckpointError, ConfigError, DataError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.metrics.screen import NO_REFERENCE
from lightning_unlearn.report.comparison import are_exact
from lightning_unlearn.report.merging import merge
from lightning_unlearn.report.wording import remarks
from lightning_unlearn.requests.history import made_by
from lightning_unlearn.stages import (
    ClassMeanTargets,
    EstimateUnseen,
    FineTune,
    ImitateUnseen,
    MaskLearning,
    NormDecay,
    ResetLayers,
    UnlearningStage,
)
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.training import fit_quietly
from lightning_unlearn.weights.checkpoint import read_weights, save_weights


class BoundedAscent(UnlearningStage):
    """Ascend the forget loss up to a ceiling; keep the retain loss low."""

    view = "both"

    def __init__(self, retain_weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.retain_weight = retain_weight

    def objective(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        forget_logits, retain_logits = self.one_forward(batch)
        ascent = F.cross_entropy(forget_logits, forget.target, reduction="none").clamp(max=math.log(self.num_classes))
        keep = F.cross_entropy(retain_logits, retain.target, reduction="none")
        return self.retain_weight * self.mean(keep, retain) - self.mean(ascent, forget)


class Block(nn.Module):
    """ConvNeXt in small: depthwise, LayerNorm over channels, two pointwise layers."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        h = self.depthwise(x).permute(0, 2, 3, 1)
        return x + self.down(F.gelu(self.up(self.norm(h)))).permute(0, 3, 1, 2)


class OwnModule(LightningModule):
    """A network and a training of somebody who does not know this package."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 2, 2)
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.predict = nn.Linear(12, 10)

    def forward(self, x):
        return self.predict(self.blocks(self.patches(x)).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch.input), batch.target)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def row(report, role):
    return next(r for r in report.rows if r.role == role)


@pytest.fixture(scope="module")
def own(digits):
    from lightning_unlearn.data.datamodule import UnlearningDataModule
    from lightning_unlearn.data.forget import RandomFraction

    torch.manual_seed(0)
    model = OwnModule()
    data = UnlearningDataModule(digits, RandomFraction(0.1), batch_size=32, num_workers=0, seed=0)
    fit_quietly(model, data, "train", 20, {"accelerator": "cpu"})
    return model.cpu()


def test_own_stage_on_own_module(own, make_data, make_trainer):
    model = copy.deepcopy(own)
    stage = BoundedAscent(max_epochs=6, optimizer=lambda params: torch.optim.Adam(params, lr=2e-3))
    report = make_trainer().unlearn(model, make_data(), [stage], relearn_epochs=0)
    before, after = row(report, "original").metrics, row(report, "method").metrics
    assert after["forget/acc"] < before["forget/acc"] - 20
    assert after["retain/acc"] > before["retain/acc"] - 20
    assert after["retain/acc"] - after["forget/acc"] > 20


def test_selective_forgetting_on_own_module(own, make_data, make_trainer):
    model = copy.deepcopy(own)
    chain = [MaskLearning(max_epochs=20), NormDecay(0.5), FineTune(max_epochs=2, optimizer=sgd(0.05))]
    report = make_trainer().unlearn(model, make_data(), chain, relearn_epochs=0, retrain_epochs=10)
    result = row(report, "method")
    assert [s.name for s in result.stages] == ["MaskLearning", "NormDecay", "FineTune"]
    assert 0 < result.metrics["cost/share"] < 1
    assert set(result.stages[0].mask_on) <= {name for name, _ in model.named_parameters()}
    layers = result.details["layers"]
    assert all(layers[name] > 0 for name in layers)


def test_a_plain_module_is_enough(trained, make_data, make_trainer):
    report = make_trainer().unlearn(trained.network, make_data(), [NormDecay(0.9)], relearn_epochs=0)
    assert row(report, "method").metrics["distance"] > 0


def test_unlearn_writes_a_run_that_evaluate_reads(trained, make_data, make_trainer, tmp_path):
    data = make_data()
    start = tmp_path / "original"
    save_weights(start / "model.ckpt", trained.state_dict(), dict(trained.hparams))
    data.saved_split(everything_trained=True).save(start / "split.json")
    reference = untrained()
    fit_quietly(reference, data, "retain", 3, {"accelerator": "cpu"})
    save_weights(tmp_path / "reference" / "model.ckpt", reference.state_dict(), {})
    data.saved_split().save(tmp_path / "reference" / "split.json")
    run = tmp_path / "run"
    paths = {"checkpoint": str(start / "model.ckpt"), "references": [str(tmp_path / "reference" / "model.ckpt")]}
    model = untrained()
    stages = [FineTune(optimizer=sgd(0.01))]
    report = make_trainer().unlearn(model, make_data(), stages, output=str(run), relearn_epochs=1, **paths)
    assert [r.role for r in report.rows] == ["reference", "original", "method"]
    assert not list(run.glob("stage*"))
    state, _ = read_weights(run / "unlearned.ckpt")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    judged = make_trainer().evaluate(
        untrained(),
        make_data(forget=None),
        str(run / "unlearned.ckpt"),
        original=paths["checkpoint"],
        references=paths["references"],
        relearn_epochs=1,
        output=str(tmp_path / "judged"),
    )
    assert row(judged, "method").metrics["forget/acc"] == row(report, "method").metrics["forget/acc"]
    assert row(judged, "original").metrics == row(report, "original").metrics
    (run / "stage0.ckpt").touch()  # left by a run that is killed after its last file
    with pytest.raises(ConfigError, match="holds a finished run"):
        make_trainer().unlearn(untrained(), make_data(), [FineTune()], output=str(run), keep_artifacts=True)
    assert (run / "stage0.ckpt").exists()
    with pytest.raises(ConfigError, match="holds a finished run"):
        make_trainer().unlearn(untrained(), make_data(), [FineTune()], output=str(run))
    assert not (run / "stage0.ckpt").exists()
    with pytest.raises(CheckpointError, match="trained on 27 of the forgotten samples"):
        make_trainer().evaluate(untrained(), make_data(), paths["checkpoint"], references=[paths["checkpoint"]])


def test_what_cannot_be_unlearned_is_said_before_the_first_step(trained, make_data, make_trainer, digits):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    with pytest.raises(DataError, match="no forget rule"):
        make_trainer().unlearn(trained, make_data(forget=None), [NormDecay()])
    with pytest.raises(ChainError, match="needs the artifact 'mask'"):
        make_trainer().unlearn(trained, make_data(), [NormDecay(use_mask=True)])
    with pytest.raises(CheckpointError, match="outputs of shape \\(2, 4\\) and the data have 10"):
        make_trainer().unlearn(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), make_data(), [NormDecay()])
    with pytest.raises(DataError, match="cannot read images of \\(1, 8, 8\\)"):
        make_trainer().unlearn(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), make_data(), [NormDecay()])
    with pytest.raises(DataError, match="Nothing says what was forgotten"):
        make_trainer().evaluate(trained, make_data(forget=None))
    # timm asserts the size of images.
    vit = create_model("vit_tiny_patch16_224", in_chans=1, num_classes=10, embed_dim=6, depth=1, num_heads=1)
    with pytest.raises(DataError, match=r"cannot read images of \(1, 8, 8\).*doesn't match model.*Change the data"):
        make_trainer().evaluate(vit, make_data())
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in before.items())


class Ending(nn.Module):
    """A network with something behind its logits."""

    def __init__(self, network, end):
        super().__init__()
        self.network, self.end = network, end

    def forward(self, x):
        return self.end(self.network(x))


def test_outputs_that_are_no_logits_of_a_batch_are_refused(trained, make_data, make_trainer):
    for end, message in (
        (lambda logits: logits.softmax(1), "gives probabilities .* needed: logits"),
        (torch.squeeze, r"Of one image the model gives outputs of shape \(10,\); needed: \(1, 10\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            make_trainer().unlearn(Ending(trained, end), make_data(), [FineTune()])


def test_user_callbacks_are_copied_for_every_stage(trained, make_data, make_trainer, tmp_path):
    given = ModelCheckpoint(tmp_path, save_last=True, monitor=None)
    trainer = make_trainer(callbacks=[given])
    stages = [FineTune(optimizer=sgd(0.01)), FineTune(optimizer=sgd(0.01))]
    trainer.unlearn(trained, make_data(), stages, relearn_epochs=0)
    assert (tmp_path / "last.ckpt").is_file()
    assert given.best_model_path == ""


def test_fresh_trainers_keep_the_arguments(make_trainer):
    trainer = make_trainer(precision="bf16-mixed", gradient_clip_val=0.5, max_epochs=9)
    stage, judge = trainer.fresh(max_epochs=2, max_steps=5), trainer.fresh(evaluation=True)
    assert isinstance(stage, UnlearningTrainer)
    assert (stage.max_epochs, stage.max_steps, stage.gradient_clip_val, stage.precision) == (2, 5, 0.5, "bf16-mixed")
    # Outputs that are compared are float32, whatever the run's precision.
    assert judge.precision == "32-true"


class Fourfold(MixedPrecision):
    """A precision of a user's own: four times the gradient, which bfloat16 does not round."""

    def pre_backward(self, tensor, module):
        return super().pre_backward(4 * tensor, module)


def test_plugins_of_the_user_reach_every_stage(trained, make_data, make_trainer):
    before, after = copy.deepcopy(trained), []
    for plugins in ([], [Fourfold("bf16-mixed", "cpu")]):
        model = copy.deepcopy(before)
        trainer = make_trainer(plugins=plugins, precision=None if plugins else "bf16-mixed")
        run_chain(trainer.fresh, model, make_data(), [FineTune(max_steps=1, optimizer=sgd(1e-1))])
        after.append(model.network.fc.weight.detach() - before.network.fc.weight.detach())
        assert trainer.fresh(evaluation=True).precision == "32-true"
    torch.testing.assert_close(after[1], 4 * after[0], rtol=1e-4, atol=1e-6)


def test_notebooks_on_several_devices_are_refused(monkeypatch, trained, make_data, make_trainer):
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.accelerator_connector._IS_INTERACTIVE", True)
    trainer = make_trainer(devices=2)
    with pytest.raises(ChainError, match=r"Strategy 'auto \(fork\)' cannot be used: its processes end with the fit"):
        trainer.unlearn(trained, make_data(), [FineTune()])


def test_a_wrecked_network_is_warned_of_at_once(trained, make_data, make_trainer, caplog):
    everything = ParameterSelector(parts=["whole"])
    for factor, warned in ((0.95, False), (0.01, True)):
        caplog.clear()
        make_trainer().unlearn(
            copy.deepcopy(trained), make_data(), [NormDecay(factor, parameters=everything)], relearn_epochs=0
        )
        said = [r.message for r in caplog.records if "the method took more than what was to be forgotten" in r.message]
        assert [text.endswith("Keep the original and try another method.") for text in said] == [True] * warned


def test_the_same_seed_gives_the_same_report(trained, make_data, make_trainer):
    reports = []
    for _ in range(2):
        torch.rand(3)
        chain = [ResetLayers(last_blocks=1), FineTune(optimizer=sgd(0.05))]
        reports.append(make_trainer().unlearn(copy.deepcopy(trained), make_data(), chain, relearn_epochs=1))
    metrics = [{k: v for k, v in row(r, "method").metrics.items() if not k.startswith(("time", "memory"))} for r in reports]
    assert str(metrics[0]) == str(metrics[1])  # NaN equals itself in text


def test_stages_write_no_checkpoints_of_their_own(trained, make_data, tmp_path):
    """Lightning adds a ModelCheckpoint to the list of callbacks that it is given."""
    trainer = UnlearningTrainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[Callback()], default_root_dir=tmp_path
    )
    trainer.unlearn(copy.deepcopy(trained), make_data(), [FineTune(optimizer=sgd(0.05))], relearn_epochs=1)
    assert list(tmp_path.iterdir()) == []


class Aimed(FineTune):
    """A method that says something against its own figures, and is exact."""

    note, warning, exact = "Aimed at on purpose.", "It failed by its own measure.", True


def test_a_judged_run_keeps_what_its_method_says_against_its_figures(trained, make_data, make_trainer, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    make_trainer().unlearn(trained, make_data(), [Aimed(optimizer=sgd(0.01))], output=str(run), relearn_epochs=0, name="aimed")

    def judged(folder):
        report = make_trainer().evaluate(
            untrained(),
            make_data(forget=None),
            str(folder / "unlearned.ckpt"),
            relearn_epochs=0,
            output=str(tmp_path / "judged"),
        )
        return report, row(report, "method")

    report, found = judged(run)
    assert found.method == "aimed"
    assert {"Aimed at on purpose.", "It failed by its own measure."} <= set(found.notes)
    assert found.exact
    assert are_exact(report)
    assert NO_REFERENCE not in found.notes
    page = (tmp_path / "judged/report.html").read_text()
    assert "Aimed at on purpose." in page
    assert "exact by construction" in page
    # The report of another checkpoint says nothing of this one.
    other.mkdir()
    for name in ("report.json", "split.json"):
        (other / name).write_bytes((run / name).read_bytes())
    save_weights(other / "unlearned.ckpt", untrained().state_dict(), {})
    report, found = judged(other)
    assert (found.exact, found.cautions) == (False, [])
    assert "Aimed at on purpose." not in found.notes


@pytest.mark.parametrize(
    ("stages", "looked"),
    [
        (lambda: [FineTune(optimizer=sgd(0.01), callbacks=[SelectByUnseen()])], True),
        (lambda: [ClassMeanTargets(), FineTune(optimizer=sgd(0.01))], True),
        (lambda: [Aimed(optimizer=sgd(0.01), callbacks=[SelectByUnseen()])], True),
        (lambda: [FineTune(optimizer=sgd(0.01))], False),
        (lambda: [EstimateUnseen(), ImitateUnseen(passes=1)], True),
    ],
)
def test_a_method_that_looks_at_unseen_samples_is_not_judged_by_them_without_a_word(
    stages, looked, trained, make_data, make_trainer
):
    report = make_trainer().unlearn(trained, make_data(unseen=80), stages(), relearn_epochs=0)
    said = [note for note in remarks(report) if "compared forgotten samples with unseen ones" in note]
    assert len(said) == looked


def test_of_whole_classes_no_unseen_sample_tells(trained, make_data, make_trainer):
    data = make_data(forget=WholeClasses([3]), unseen=80)
    report = make_trainer().unlearn(trained, data, [EstimateUnseen(), ImitateUnseen(passes=1)], relearn_epochs=0)
    assert not any("compared forgotten samples with unseen ones" in note for note in remarks(report))


def test_judged_models_stay_apart_where_their_reports_are_joined(trained, make_data, make_trainer, tmp_path, monkeypatch):
    reports = []

    def judge(path):
        reports.append(make_trainer().evaluate(untrained(), make_data(forget=None), str(path), relearn_epochs=0))

    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        given = {"output": str(tmp_path / seed), "relearn_epochs": 0, "name": "tune"}
        make_trainer().unlearn(copy.deepcopy(trained), make_data(), [FineTune(optimizer=sgd(0.1))], **given)
        judge(tmp_path / seed / "unlearned.ckpt")
    # Of these nothing says what made them.
    for file in ("other/1/checkpoints/last", "other/2/checkpoints/last", "a/models/one", "a/models/two"):
        path = tmp_path / f"{file}.ckpt"
        save_weights(path, untrained().state_dict(), {})
        make_data().saved_split().save(path.parent / "split.json")
        judge(path)
    joined = merge(reports)
    names = ["tune", "tune", "other/1", "other/2", "a/models/one", "a/models/two"]
    assert [(r.method, r.seed) for r in joined.rows] == list(zip(names, (0, 1, 0, 0, 0, 0), strict=True))
    assert made_by("/unlearned.ckpt").method == "unlearned"
