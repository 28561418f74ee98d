"""Many entries of a bank at once: the same keys, resumed after a stop, and over processes."""

import logging
from dataclasses import replace

import pytest
import torch
from helpers import untrained
from lightning.pytorch import LightningModule
from test_bank import RECIPE, assert_equal, entries

from lightning_unlearn.bank.bank import Bank
from lightning_unlearn.bank.filling import train_missing
from lightning_unlearn.files import lock_folder


def trained_many(bank, recipe, data, view, seeds, processes):
    train_missing(bank, recipe, data, view, seeds, processes)
    return [bank.trained(recipe, data, view, seed) for seed in seeds]


class Own(LightningModule):
    """A user's module, with a training step of its own."""

    def __init__(self):
        super().__init__()
        self.network = untrained().network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return self(batch.input).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


DOUBLE = replace(RECIPE, trainer={"accelerator": "cpu", "precision": "64-true"})


@pytest.mark.parametrize("processes", [1, 2])
def test_entries_are_those_of_single_training(processes, make_data, tmp_path, caplog):
    """Same keys, same weights up to rounding; what is there is only read; one line before and one after each group."""
    many, single = Bank(tmp_path / "many"), Bank(tmp_path / "single")
    with caplog.at_level(logging.INFO):
        models = trained_many(many, DOUBLE, make_data(), "retain", [5, 0, 3, 8], processes=processes)
    [first] = [record.message for record in caplog.records if "training 4 references" in record.message]
    assert f"processes: {processes}; about" in first
    assert sum("left" in record.message for record in caplog.records) >= 1
    assert not models[0].training
    expected = single.trained(DOUBLE, make_data(), "retain", 3).double()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(models[2].state_dict()[name].double(), value, rtol=1e-6, atol=1e-7)
    written = entries(tmp_path / "many")
    assert len(written) == 4
    assert set(entries(tmp_path / "single")) < set(written)
    again = [many.trained(DOUBLE, make_data(), "retain", seed) for seed in (5, 0, 3, 8)]
    more = trained_many(many, DOUBLE, make_data(), "retain", [8, 5], processes=processes)
    assert entries(tmp_path / "many") == written
    for a, b in zip(models, again, strict=True):
        assert_equal(a, b)
    assert_equal(more[0], models[3])


def test_a_stopped_run_trains_only_what_is_missing(make_data, tmp_path):
    bank = Bank(tmp_path)
    trained_many(bank, RECIPE, make_data(), "train", [0, 1, 2], processes=1)
    before = entries(tmp_path)
    next(tmp_path.glob("*/entry.json")).unlink()
    trained_many(bank, RECIPE, make_data(), "train", [0, 1, 2, 3, 4], processes=1)
    after = entries(tmp_path)
    assert len(after) == 5
    assert sum(after[name] == time for name, time in before.items()) == 2


def test_what_another_process_trains_is_left_to_it(make_data, tmp_path, monkeypatch):
    """The group goes on without the entry whose folder is locked, and waits for that one at the end."""
    bank, data = Bank(tmp_path), make_data()
    content = bank.content(RECIPE, RECIPE.build(1), data, "train", 1)
    trained, asked = bank.trained, []

    def spy(recipe, data, view, seed):
        asked.append((seed, len(entries(tmp_path))))
        lock.__exit__(None, None, None) if seed == 1 else None
        return trained(recipe, data, view, seed)

    monkeypatch.setattr(bank, "trained", spy)
    lock = lock_folder(bank.entry(content))
    lock.__enter__()
    models = trained_many(bank, RECIPE, data, "train", [0, 1, 2], processes=1)
    assert asked == [(0, 2), (1, 2), (2, 3)]
    assert len(models) == len(entries(tmp_path)) == 3


def test_one_after_another_a_second_process_takes_the_next_entry(make_data, tmp_path, monkeypatch):
    """It does not wait for the entry that the first is at, or both would only ever work at the same one."""
    bank, data, recipe, asked = Bank(tmp_path), make_data(), replace(RECIPE, model=Own), []
    content = bank.content(recipe, recipe.build(0), data, "train", 0)
    monkeypatch.setattr(bank, "trained", lambda recipe, data, view, seed: asked.append(seed))
    with lock_folder(bank.entry(content)):
        train_missing(bank, recipe, data, "train", [0, 1, 2], processes=1)
    assert asked == [1, 2]


def test_a_users_module_is_trained_one_after_another_and_the_log_says_why(make_data, tmp_path, caplog):
    recipe = replace(RECIPE, model=Own)
    with caplog.at_level(logging.INFO):
        models = trained_many(Bank(tmp_path), recipe, make_data(), "train", [0, 1], processes=1)
    assert "one after another (a Own may do anything in its training step" in caplog.text
    assert_equal(models[1], Bank(tmp_path / "single").trained(recipe, make_data(), "train", 1))
