import json
import logging
from dataclasses import replace

import pytest
import torch
from helpers import sgd, untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.weights.fingerprint import hash_of_weights

RECIPE = Recipe(untrained, 1, {"accelerator": "cpu"})


def entries(folder):
    """When each entry's weights were written: training writes them anew."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/weights.ckpt")}


def assert_equal(a, b):
    state = b.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in a.state_dict().items())


def test_the_second_call_trains_nothing(make_data, tmp_path):
    bank, data = Bank(tmp_path), make_data()
    first = bank.trained(RECIPE, data, "train", 0)
    written = entries(tmp_path)
    assert len(written) == 1
    torch.rand(3)
    again = bank.trained(RECIPE, make_data(), "train", 0)
    assert entries(tmp_path) == written
    assert_equal(first, again)
    assert not again.training
    assert data.serving == make_data().serving


def test_an_original_is_shared_by_forget_sets_and_a_reference_is_not(make_data, tmp_path):
    bank, data = Bank(tmp_path), make_data()
    original, reference = bank.trained(RECIPE, data, "train", 0), bank.trained(RECIPE, data, "retain", 0)
    data.draw(forget_seed=1)
    assert_equal(bank.trained(RECIPE, data, "train", 0), original)
    assert len(entries(tmp_path)) == 2
    assert hash_of_weights(bank.trained(RECIPE, data, "retain", 0)) != hash_of_weights(reference)
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "entry"])
def test_a_damaged_entry_is_trained_again(damage, make_data, tmp_path, caplog):
    bank = Bank(tmp_path)
    first = bank.trained(RECIPE, make_data(), "train", 0)
    [weights] = tmp_path.glob("*/weights.ckpt")
    if damage == "entry":
        record = json.loads((weights.parent / "entry.json").read_text())
        record["content"]["seed"] = 5
        (weights.parent / "entry.json").write_text(json.dumps(record))
    else:
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content[:1000] if damage == "cut" else content)
    before = entries(tmp_path)
    with caplog.at_level(logging.WARNING):
        again = bank.trained(RECIPE, make_data(), "train", 0)
    assert "cannot be used" in caplog.text
    assert entries(tmp_path) != before
    assert_equal(first, again)
    caplog.clear()
    bank.trained(RECIPE, make_data(), "train", 0)
    assert not caplog.records


def test_an_unfinished_entry_is_trained_again(make_data, tmp_path):
    bank = Bank(tmp_path)
    bank.trained(RECIPE, make_data(), "train", 0)
    before = entries(tmp_path)
    next(tmp_path.glob("*/entry.json")).unlink()
    bank.trained(RECIPE, make_data(), "train", 0)
    assert entries(tmp_path) != before


def content(make_data, recipe=RECIPE, view="train", seed=0, **data):
    return Bank.content(recipe, recipe.build(seed), make_data(**data), view, seed)


def test_content_is_the_same_for_the_same_and_says_nothing_of_the_machine(make_data):
    assert content(make_data) == content(make_data)
    assert content(make_data, replace(RECIPE, trainer={"accelerator": "auto", "devices": 1})) == content(make_data)
    # Batches that only evaluation sees, and where images are held, change nothing.
    assert content(make_data, eval_batch_size=7, resident=False) == content(make_data)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"view": "retain"},
        {"batch_size": 16},
        {"augmentation": Augmentation(1)},
        {"unseen": 0.2},
        {"split_seed": 1},
        {"label_noise": LabelNoise(0.1)},
        {"recipe": replace(RECIPE, max_epochs=2)},
        {"recipe": replace(RECIPE, trainer={"precision": "bf16-mixed"})},
        {"recipe": replace(RECIPE, trainer={"gradient_clip_val": 1.0})},
        {"recipe": replace(RECIPE, model=lambda: untrained("ResNet"))},
        {"recipe": replace(RECIPE, model=lambda: with_optimizer(sgd(0.2, momentum=0.9)))},
        {"recipe": replace(RECIPE, model=lambda: with_schedule("constant"))},
    ],
)
def test_content_differs_where_anything_differs(change, make_data):
    assert content(make_data, **change) != content(make_data)


def with_optimizer(optimizer):
    model = untrained()
    model.optimizer = optimizer
    return model


def with_schedule(schedule):
    return Classifier(**{**untrained().hparams, "schedule": schedule}, optimizer=untrained().optimizer)


def test_a_seed_of_the_order_of_its_own_counts(make_data):
    assert Bank.content(RECIPE, RECIPE.build(0), make_data(seed=3), "train", 0) != content(make_data)


def test_views_of_the_same_samples_differ_in_their_order(make_data):
    assert content(make_data, forget=None) != content(make_data, view="retain", forget=None)


def test_hashes_see_every_bit(trained, tmp_path):
    before = hash_of_weights(trained)
    with torch.no_grad():
        trained.network.fc.bias[3] += 1e-6
    assert hash_of_weights(trained) != before
    path = tmp_path / "file"
    path.write_bytes(b"a" * 10_000)
    first = hash_of_file(path)
    path.write_bytes(b"a" * 9_999 + b"b")
    assert hash_of_file(path) != first
