import pytest
import torch
from helpers import untrained
from lightning.pytorch import Callback, seed_everything

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.callbacks.mnemonic_codes import MnemonicCodes
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.loading import check_model
from lightning_unlearn.training import fit_quietly
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO, read_saved
from lightning_unlearn.weights.mnemonic import codes_of

CPU = {"accelerator": "cpu", "devices": 1}


class Record(Callback):
    """What training steps are given, by epoch and sample."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for image, index in zip(batch.input, batch.index.tolist(), strict=True):
            self.seen[trainer.current_epoch, index] = image.clone()


def train(data, *callbacks, epochs=2):
    seed_everything(3, verbose=False)
    model = untrained()
    fit_quietly(model, data, "train", epochs, CPU, list(callbacks))
    return model


@pytest.mark.parametrize("resident", [True, False])
def test_images_give_way_to_the_codes_of_their_classes_as_the_network_sees_them(make_data, resident):
    data = make_data(augmentation=Augmentation(2), resident=resident)
    plain, mixed = Record(), Record()
    train(data, plain)
    model = train(data, MnemonicCodes(0.3), mixed)
    codes = codes_of(model)
    assert codes.images.shape == (10, 1, 8, 8)
    assert codes.images.min() >= 0
    assert codes.images.max() <= 1
    assert abs(codes.images.mean() - 0.5) < 5 * (1 / 12 / codes.images.numel()) ** 0.5
    assert codes.labels.tolist() == list(range(10))
    replaced = 0
    for key, image in mixed.seen.items():
        if not torch.equal(image, plain.seen[key]):
            assert torch.equal(image, codes.images[data.samples.targets[key[1]]])
            replaced += 1
    n = len(mixed.seen)
    assert n == len(plain.seen) == 2 * len(data.part("train")[1])
    assert abs(replaced / n - 0.3) < 5 * (0.21 / n) ** 0.5
    first, second = (
        {i for e, i in mixed.seen if e == k and not torch.equal(mixed.seen[e, i], plain.seen[e, i])} for k in (0, 1)
    )
    assert first != second


def test_which_images_are_replaced_does_not_depend_on_the_others(make_data):
    seen = []
    for size in (32, 17):
        record = Record()
        train(make_data(batch_size=size), MnemonicCodes(0.3), record, epochs=1)
        seen.append(record.seen)
    assert all(torch.equal(image, seen[1][key]) for key, image in seen[0].items())


def test_a_checkpoint_carries_the_codes_and_a_resumed_run_keeps_them(make_data, make_trainer, tmp_path):
    data = make_data()
    seed_everything(3, verbose=False)
    model = untrained()
    model.schedule = "constant"  # a course over one epoch could not go on
    trainer = make_trainer(max_epochs=1, callbacks=[MnemonicCodes(0.2)], enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    # Read by weights_only=True: nothing but tensors and plain values.
    state = AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert set(state["callbacks"]["MnemonicCodes"]) == {"images", "labels"}
    codes = read_saved(tmp_path / "last.ckpt")[2]
    assert torch.equal(codes.images, codes_of(model).images)
    fresh = untrained()
    check_model(fresh, data, str(tmp_path / "last.ckpt"))
    assert torch.equal(codes_of(fresh).images, codes.images)
    seed_everything(4, verbose=False)  # would draw others
    again = untrained()
    again.schedule = "constant"
    resumed = make_trainer(max_epochs=2, callbacks=[MnemonicCodes(0.2)], enable_checkpointing=False)
    resumed.fit(again, datamodule=data, ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(codes_of(again).images, codes.images)


def test_every_fit_draws_codes_of_its_own_seed(make_data):
    data, again = make_data(), MnemonicCodes(0.2)
    first = codes_of(train(data, again, epochs=1))
    seed_everything(4, verbose=False)
    second, fresh = untrained(), untrained()
    for model, callback in ((second, again), (fresh, MnemonicCodes(0.2))):
        fit_quietly(model, data, "train", 1, CPU, [callback])
    assert not torch.equal(codes_of(second).images, first.images)
    assert torch.equal(codes_of(second).images, codes_of(fresh).images)


def test_a_bank_knows_models_by_their_callbacks_and_keeps_codes(make_data, tmp_path):
    bank, data = Bank(tmp_path), make_data()
    plain = Recipe(untrained, 1, CPU)
    mixed = Recipe(untrained, 1, CPU, [MnemonicCodes(0.2)])
    names = {bank.entry(bank.content(r, r.build(0), data, "train", 0)).name for r in (plain, mixed)}
    names.add(bank.entry(bank.content(Recipe(untrained, 1, CPU, [MnemonicCodes(0.1)]), plain.build(0), data, "train", 0)).name)
    assert len(names) == 3
    assert "callbacks" not in bank.content(plain, plain.build(0), data, "train", 0)
    first, again = (bank.trained(mixed, data, "train", 0) for _ in range(2))
    assert len(list(tmp_path.glob("*/weights.ckpt"))) == 1
    assert torch.equal(codes_of(first).images, codes_of(again).images)
    assert codes_of(bank.trained(plain, data, "train", 0)) is None


def test_stages_of_unlearning_run_without_it(make_trainer):
    trainer = make_trainer(callbacks=[MnemonicCodes(0.2)])
    assert [repr(callback) for callback in trainer.recipe_callbacks] == ["MnemonicCodes(mixing=0.2)"]
    assert not any(isinstance(callback, MnemonicCodes) for callback in trainer.fresh().callbacks)


@pytest.mark.parametrize("mixing", [0.0, 1.0, -0.1])
def test_arguments_are_checked(mixing):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        MnemonicCodes(mixing)


def test_a_benchmark_trains_its_originals_with_the_callback(make_data, make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=1, callbacks=[MnemonicCodes(0.2)])
    folders = {"output": str(tmp_path / "cells"), "bank": str(tmp_path / "bank")}
    data = make_data(forget=WholeClasses([3]))
    report = trainer.benchmark(untrained(), data, ["mnemonic", "fine_tune"], references=0, relearn_epochs=0, **folders)
    rows = {row.method: row for row in report.rows}
    assert not any(note.startswith("failed:") for row in rows.values() for note in row.notes)
    assert rows["mnemonic"].stages[0].work == 50
