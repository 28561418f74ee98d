"""A checkpoint's split brings back what data sets measure or draw anew: normalisation and label noise."""

import json
from dataclasses import replace

import pytest
import torch

from lightning_unlearn.cautions import of_reference, of_split
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.reading import pick
from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.trigger import Trigger
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import CheckpointError, DataError


def with_statistics(digits, mean, std, given=()):
    return VisionData("digits", digits.train, digits.test, digits.classes, mean, std, given)


@pytest.fixture
def checkpoint(make_data, tmp_path):
    """A checkpoint's name, beside which the split of the data lies."""
    make_data().saved_split(everything_trained=True).save(tmp_path / "split.json")
    return tmp_path / "model.ckpt"


def test_the_normalisation_of_the_training_counts(digits, make_data, checkpoint, caplog):
    data = make_data(with_statistics(digits, [0.25], [0.5]))
    before = next(iter(data.evaluation_loader("test"))).input
    data.use_split_of(checkpoint)
    assert (data.dataset.mean, data.dataset.std) == (digits.mean, digits.std)
    assert "would give 0.25 and 0.5" in caplog.text
    assert len(caplog.records) == 1
    # Also of loaders that had been made before, and of what the next request is given.
    after = next(iter(data.evaluation_loader("test"))).input
    assert torch.allclose(after * digits.std[0] + digits.mean[0], before * 0.5 + 0.25, atol=1e-5)
    assert data.saved_split().mean == list(digits.mean)
    data.use_split_of(checkpoint, forgotten_is_removed=False)
    assert len(caplog.records) == 1


def test_what_one_checkpoint_brought_does_not_stay_for_the_next(digits, make_data, checkpoint, tmp_path):
    noise = LabelNoise(0.2)
    make_data(label_noise=noise).saved_split(everything_trained=True).save(tmp_path / "split.json")
    few = kept(digits, torch.arange(200))
    few.mean, few.std = (0.25,), (0.5,)
    data = make_data(few, label_noise=noise)
    before = data.samples.targets.clone()
    data.use_split_of(checkpoint)
    assert data.dataset.mean == digits.mean
    assert not torch.equal(data.samples.targets, before)
    data.use_split_of(tmp_path / "elsewhere" / "model.ckpt")
    assert (data.dataset.mean, data.dataset.std) == ((0.25,), (0.5,))
    assert torch.equal(data.samples.targets, before)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_another_normalisation_that_was_given_is_refused(digits, make_data, checkpoint, name):
    values = {"mean": [0.25], "std": [0.5]}
    data = make_data(with_statistics(digits, **values, given=[name]))
    with pytest.raises(DataError, match=f"{name} is {values[name][0]}, and .* trained with .*Leave {name} out"):
        data.use_split_of(checkpoint)


def test_a_rounded_copy_of_it_is_the_same(digits, make_data, checkpoint, caplog):
    rounded = [[float(f"{value:.4g}") for value in values] for values in (digits.mean, digits.std)]
    data = make_data(with_statistics(digits, *rounded, given=["mean", "std"]))
    data.use_split_of(checkpoint)
    assert (data.dataset.mean, data.dataset.std) == (digits.mean, digits.std)
    assert not caplog.records


def test_older_splits_say_nothing_of_it_and_damaged_ones_are_refused(digits, make_data, checkpoint):
    path = checkpoint.parent / "split.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "std": [0.0]}))
    with pytest.raises(CheckpointError, match="'mean' or 'std' is no list of numbers"):
        SavedSplit.load(path)
    for name in ("mean", "std"):
        del content[name]
    path.write_text(json.dumps(content))
    data = make_data(with_statistics(digits, [0.25], [0.5], ["mean"]))
    data.use_split_of(checkpoint)
    assert data.dataset.mean == (0.25,)


def test_a_reference_of_another_normalisation_is_named(make_data, tmp_path):
    data = make_data()
    split = data.saved_split()
    split.save(tmp_path / "split.json")
    assert of_reference(tmp_path / "r.ckpt", data) == []
    replace(split, mean=[0.1]).save(tmp_path / "split.json")
    [said] = of_reference(tmp_path / "r.ckpt", data)
    assert "was trained with mean [0.1]" in said


def kept(digits, rows):
    return VisionData("digits", pick(digits.train, rows), digits.test, digits.classes, digits.mean, digits.std)


@pytest.mark.parametrize("noise", [LabelNoise(0.2), LabelNoise(0.2, flip="bernoulli")])
def test_labels_stay_those_that_the_model_learnt(digits, make_data, tmp_path, noise):
    first = make_data(label_noise=noise)
    first.saved_split(everything_trained=True).save(tmp_path / "split.json")
    learnt = dict(zip(first.samples.keys, first.samples.targets.tolist(), strict=True))
    # Every tenth sample goes.
    data = make_data(kept(digits, torch.arange(300)[torch.arange(300) % 10 > 0]), label_noise=noise)
    alone = data.samples.targets.clone()
    data.use_split_of(tmp_path / "model.ckpt")
    assert data.samples.targets.tolist() == [learnt[key] for key in data.samples.keys]
    assert torch.equal(alone, data.samples.targets) == (noise.flip == "bernoulli")
    served = torch.cat([batch.target for batch in data.evaluation_loader("train")])
    samples, index = data.part("train")
    assert served.tolist() == [learnt[samples.keys[i]] for i in index.tolist()]
    # So they do in a request after that one, and where samples come back.
    data.saved_split().save(tmp_path / "split.json")
    for rows in (torch.arange(200), torch.arange(300)):
        later = make_data(kept(digits, rows), label_noise=noise)
        later.use_split_of(tmp_path / "unlearned.ckpt")
        assert later.samples.targets.tolist() == [learnt[key] for key in later.samples.keys]
        assert of_split(later) == []


@pytest.mark.parametrize(
    "how", [{"label_noise": LabelNoise(0.2, swap=(3, 5))}, {"trigger": Trigger(0.2, draw="exact")}], ids=["swap", "trigger"]
)
def test_draws_that_cannot_be_repeated_are_warned_of(digits, make_data, tmp_path, how):
    make_data(**how).saved_split(everything_trained=True).save(tmp_path / "split.json")
    data = make_data(**how)
    data.use_split_of(tmp_path / "model.ckpt")
    assert of_split(data) == []
    data = make_data(kept(digits, torch.arange(290)), **how)
    data.use_split_of(tmp_path / "model.ckpt")
    [said] = of_split(data)
    assert "Samples went or came since the checkpoint was trained" in said
