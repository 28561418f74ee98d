"""Deleting from an ensemble is training without, bit for bit; what was deleted stays so; wrong calls are refused."""

import json
import random
import shutil
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import ChainError, CheckpointError, ConfigError, DataError
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.stages import FineTune, RetrainShards
from lightning_unlearn.weights.checkpoint import read_weights
from tests.sisa.conftest import assert_equal, checkpoints, delete, fit, make_model, make_trainer, without


class Recorder:
    """Images that remember which of them were read."""

    def __init__(self, images):
        self.images, self.read = images, set()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.add(int(index))
        return self.images[index]


def trained_keys(data, count, seed=0):
    keys = [data.samples.keys[i] for i in data.part("retain")[1].tolist()]
    return random.Random(seed).sample(keys, count)


@pytest.mark.parametrize("way", ["view", "rows", "augmented"])
def test_bit_identical_to_a_fresh_run_on_the_reduced_data(way, make_data, small, tmp_path):
    extra = {"augmentation": Augmentation(shift=1)} if way == "augmented" else {}
    network = {"network": "tests.sisa.conftest.Dropping", "network_args": {}} if way == "augmented" else {}
    data = make_data(**extra)
    keys = trained_keys(data, 3)
    model = fit(tmp_path / "a", data, **network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = delete(model, make_data(keys, **extra), tmp_path / "a/checkpoints/last.ckpt", tmp_path / "b")
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    reduced = make_data(keys, view="retain", **extra) if way == "view" else make_data(dataset=without(small, keys), **extra)
    fresh = fit(tmp_path / "c", reduced, **network)
    assert_equal(model, fresh)
    # All slices too, from which the next deletion starts.
    for path in (tmp_path / "c/checkpoints/slices").glob("*.ckpt"):
        ours, theirs = read_weights(tmp_path / "b/slices" / path.name)[0], read_weights(path)[0]
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert 0 < result.work < 3 * 2 * 57 * 3
    assert "shards are trained" in result.note


@pytest.mark.parametrize("seed", [0, 1])
def test_random_requests_never_bring_a_row_back_and_leave_no_checkpoint_that_saw_one(seed, copy, small, make_data, tmp_path):
    draw = random.Random(seed)
    images = Recorder(small.train.images)
    watched = VisionData("digits", replace(small.train, images=images), small.test, small.classes, small.mean, small.std)
    removed, checkpoint, model = set(), copy, make_model()
    left = trained_keys(make_data(), 60)
    for turn in range(3):
        request = draw.sample(left, draw.choice([1, 2, 5]))
        left = [key for key in left if key not in request]
        removed |= set(request)
        data = make_data(request, dataset=watched, resident=False)
        images.read.clear()
        output = tmp_path / f"request{turn}"
        delete(model, data, checkpoint, output)
        assert images.read
        assert not {small.train.keys[i] for i in images.read} & removed
        for path in tmp_path.rglob("*.trained.json"):
            assert not set(json.loads(path.read_text())["keys"]) & removed, path
            assert path.with_name(path.name.removesuffix(".trained.json")).is_file()
        assert not checkpoint.exists()
        assert checkpoints(tmp_path) == checkpoints(output)
        assert set(json.loads((output / "slices/slices.json").read_text())["removed"]) == removed
        checkpoint = output / "unlearned.ckpt"
    assert len(checkpoints(checkpoint.parent)) == 1 + 6
    assert_equal(model, fit(tmp_path / "fresh", make_data(dataset=without(small, removed))))


def test_one_call_of_unlearn_reports_the_plan_and_an_interrupted_fit_goes_on(original, copy, make_data, tmp_path):
    # Two slices and the ensemble are lost: they are trained again, and the others are not.
    slices = sorted((copy.parent / "slices").glob("*.ckpt"))
    lost, kept = slices[2:4], {path: path.stat().st_mtime_ns for path in slices if path not in slices[2:4]}
    for path in (*lost, copy):
        path.unlink()
    again = fit(tmp_path / "a", make_data())
    assert_equal(again, Sisa.load(original / "checkpoints/last.ckpt"))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}

    data = make_data()
    key = trained_keys(data, 1)
    report = make_trainer().unlearn(
        again, make_data(key), [RetrainShards()], checkpoint=str(copy), output=str(tmp_path / "b"), relearn_epochs=1
    )
    row = report.rows[-1]
    assert any("1 of 3 shards are trained" in note for note in row.notes)
    assert 0 < row.stages[0].requests["1"] < row.stages[0].requests["50"] <= 1
    assert "Cost by size of a request" in (tmp_path / "b/report.html").read_text()
    assert row.stages[0].work > 0
    judged = make_trainer().evaluate(make_model(), make_data(), checkpoint=str(tmp_path / "b/unlearned.ckpt"), relearn_epochs=0)
    assert judged.rows[-1].metrics["retain/acc"] == row.metrics["retain/acc"]
    loaded = Sisa.load(tmp_path / "b/unlearned.ckpt")
    assert_equal(loaded, again)
    with pytest.raises(CheckpointError, match=r"not written by a Classifier.*Sisa\.load"):
        Classifier.load(tmp_path / "b/unlearned.ckpt")


def test_processes_give_the_same_weights(original, make_data, tmp_path):
    assert_equal(fit(tmp_path, make_data(), processes=2), Sisa.load(original / "checkpoints/last.ckpt"))


def test_the_vote_leaves_out_an_empty_shard(make_data, small, copy, tmp_path):
    data = make_data()
    shard = json.loads(next(copy.parent.glob("slices/shard-1-slice-1-*.trained.json")).read_text())["keys"]
    model = make_model()
    delete(model, make_data(shard), copy, tmp_path / "b")
    assert model.network.has_samples.tolist() == [True, False, True]
    x = data.example(5)
    with torch.no_grad():
        before = model(x)
        model.network.members[1].load_state_dict({k: v * 7 for k, v in model.network.members[1].state_dict().items()})
        assert torch.equal(model(x), before)
    fresh = fit(tmp_path / "c", make_data(dataset=without(small, shard)))
    assert fresh.network.has_samples.tolist() == [True, False, True]
    model.redraw(1, json.loads((tmp_path / "b/slices/slices.json").read_text())["recipe"]["seed"])
    assert torch.equal(fresh(x), before)


def test_requests_that_cannot_be_done(copy, make_data, tmp_path):
    data = make_data()
    one, two = trained_keys(data, 2)
    with pytest.raises(ChainError, match="the model is a Classifier"):
        RetrainShards().check(Classifier("MLP", 10, 1, image_size=8), data)
    with pytest.raises(ChainError, match="runs in `unlearn`"):
        RetrainShards().check(make_model(), data)
    (tmp_path / "alone").mkdir()
    shutil.copy(copy, tmp_path / "alone/last.ckpt")
    with pytest.raises(CheckpointError, match="No slices lie beside"):
        delete(make_model(), make_data([one]), tmp_path / "alone/last.ckpt", tmp_path / "b")
    for change, message in (({"optimizer": torch.optim.Adam}, "model.optimizer was SGD"), ({"slices": 3}, "slices was 2")):
        with pytest.raises(ConfigError, match=message):
            delete(make_model(**change), make_data([one]), copy, tmp_path / "b")
    with pytest.raises(CheckpointError, match="other architecture"):
        delete(make_model(shards=2), make_data([one]), copy, tmp_path / "b")
    with pytest.raises(ConfigError, match=r"data\.augmentation was None"):
        delete(make_model(), make_data([one], augmentation=Augmentation()), copy, tmp_path / "b")
    two_ranks = RetrainShards()
    two_ranks.place(make_trainer(devices=2).fresh, str(copy), str(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"trainer\.ranks was 1 and is now 2\. Run with what it was, or train anew"):
        two_ranks.check(make_model(), make_data([one]))
    assert not (tmp_path / "b").exists()
    delete(make_model(), make_data([one]), copy, tmp_path / "b")
    shutil.copy(tmp_path / "b/unlearned.ckpt", copy)
    with pytest.raises(ConfigError, match=r"its place was taken by .*b\. Give --checkpoint"):
        delete(make_model(), make_data([two]), copy, tmp_path / "c")
    (tmp_path / "b/split.json").unlink()
    with pytest.raises(CheckpointError, match=r"1 samples that earlier requests deleted .* Restore its split\.json"):
        delete(make_model(), make_data([two]), tmp_path / "b/unlearned.ckpt", tmp_path / "c")
    (tmp_path / "b/unlearned.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"Another request on .* was begun in"):
        delete(make_model(), make_data([two]), copy, tmp_path / "c")
    (copy.parent / "slices/slices.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        delete(make_model(), make_data([two]), copy, tmp_path / "d")


def test_fits_that_cannot_be_done(copy, make_data, tmp_path):
    with pytest.raises(ConfigError, match="holds slices that were trained otherwise: epochs was 2 and is now 4"):
        fit(tmp_path / "a", make_data(), epochs=6)
    with pytest.raises(ConfigError, match="trained slice by slice"):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1).fit(
            make_model(), datamodule=make_data()
        )
    with pytest.raises(ConfigError, match="needs epochs"):
        make_trainer(max_steps=3, default_root_dir=str(tmp_path / "n")).fit(make_model(), datamodule=make_data())
    with pytest.raises(ConfigError, match="without its checkpoints"):
        make_trainer(max_epochs=3, enable_checkpointing=False).fit(make_model(), datamodule=make_data())
    with pytest.raises(ConfigError, match="'train' or 'retain'"):
        make_trainer(max_epochs=3, default_root_dir=str(tmp_path / "n")).fit(make_model(), datamodule=make_data(view="none"))
    with pytest.raises(DataError, match="UnlearningDataModule"):
        make_trainer(max_epochs=3, default_root_dir=str(tmp_path / "n")).fit(make_model())
    for wrong in ({"shards": 0}, {"slices": True}, {"processes": -1}):
        with pytest.raises(ConfigError, match="needed: at least 1"):
            make_model(**wrong)
    with pytest.raises(ConfigError, match="its name or class path"):
        Sisa(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="'vote' or 'mean'"):
        make_model(aggregation="median")


def test_other_stages_take_an_ensemble_as_any_model(copy, make_data, tmp_path):
    report = make_trainer().unlearn(
        make_model(aggregation="mean"), make_data(trained_keys(make_data(), 3)), [FineTune(max_epochs=1, cache=False)],
        checkpoint=str(copy), relearn_epochs=0,
    )  # fmt: skip
    assert report.rows[-1].metrics["distance"] > 0


@pytest.mark.parametrize(("name", "value"), [("limit_train_batches", 1), ("overfit_batches", 1), ("min_steps", 20)])
def test_a_deletion_trains_as_long_as_the_fit_did_or_is_refused(name, value, make_data, tmp_path):
    shorter = {name: value}
    data = make_data()
    keys = trained_keys(data, 2)
    model = fit(tmp_path / "a", data, trainer=shorter)
    checkpoint = tmp_path / "a/checkpoints/last.ckpt"
    with pytest.raises(ConfigError, match=rf"trained otherwise: trainer.{name} was {value} and is now None"):
        delete(make_model(), make_data(keys), checkpoint, tmp_path / "b")
    delete(model, make_data(keys), checkpoint, tmp_path / "b", **shorter)
    assert_equal(model, fit(tmp_path / "c", make_data(keys, view="retain"), trainer=shorter))


def test_early_fits_recorded_a_short_name_of_the_precision(make_data, tmp_path):
    data = make_data()
    keys = trained_keys(data, 2)
    model = fit(tmp_path / "a", data)
    path = tmp_path / "a/checkpoints/slices/slices.json"
    text = path.read_text()
    assert '"32-true"' in text
    manifest = json.loads(text)
    manifest["recipe"]["settings"]["trainer.precision"] = "32"
    path.write_text(json.dumps(manifest))
    delete(model, make_data(keys), tmp_path / "a/checkpoints/last.ckpt", tmp_path / "b")
    with pytest.raises(ConfigError, match=r"trainer.precision was 32-true and is now 64-true"):
        fit(tmp_path / "a", make_data(), trainer={"precision": 64})


def test_no_clock_ends_a_training_that_is_to_be_done_again(copy, make_data, tmp_path):
    with pytest.raises(ConfigError, match=r"max_time is 00:01:00:00: .* fewer max_epochs"):
        fit(tmp_path / "clock", make_data(), trainer={"max_time": "00:01:00:00"})
    with pytest.raises(ConfigError, match=r"trainer.max_time was None and is now '00:01:00:00'"):
        delete(make_model(), make_data(trained_keys(make_data(), 1)), copy, tmp_path / "b", max_time="00:01:00:00")
