"""The record is what a loop over the same batches would write, whatever the model, however often the fit was stopped."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd, untrained
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.detection.record import MarginRecord
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.stages import FineTune
from lightning_unlearn.training import fit_quietly, quiet


class Own(LightningModule):
    """A user's module: another forward pass in the step, and a network that is not called through `self` there."""

    def __init__(self, through_self=True):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.through_self = through_self

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        logits = self(batch.input) if self.through_self else self.net(batch.input)
        with torch.no_grad():
            self(batch.input * 0)  # a second call of the step is not what is recorded
        return F.cross_entropy(logits, batch.target)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def recorded(model, data, epochs, **kwargs):
    callback = RecordMargins()
    fit_quietly(model, data, "train", epochs, {"accelerator": "cpu", **kwargs}, callbacks=[callback])
    return callback.state_dict()


def test_it_writes_what_a_plain_loop_sees(make_data):
    data, epochs = make_data(seed=0), 3
    torch.manual_seed(3)
    model = Own()
    plain = copy.deepcopy(model)
    state = recorded(model, data, epochs)
    index = data.part("train")[1]
    margins, losses = torch.zeros(len(data.samples)).double(), torch.full((epochs, len(data.samples)), torch.nan)
    rivals = torch.full((epochs, len(data.samples)), -1)
    optimizer = plain.configure_optimizers()
    for epoch in range(epochs):
        for pieces in data.plan.steps(epoch):
            piece = pieces["train"]
            maker = data.evaluation_loader("train", piece.index).maker
            batch = maker.make(next(iter(maker.read([[piece.index]])))[0], piece, augment=False)
            logits = plain(batch.input)
            for row, i, y in zip(logits.detach(), batch.index.tolist(), batch.target.tolist(), strict=True):
                other = max((float(row[k]), -k) for k in range(10) if k != y)
                margins[i] += float(row[y]) - other[0]
                losses[epoch, i] = -float(row.log_softmax(0)[y])
                rivals[epoch, i] = -other[1]
            optimizer.zero_grad()
            F.cross_entropy(logits, batch.target).backward()
            optimizer.step()
    torch.testing.assert_close(state["margin_sum"], margins, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(state["losses"], losses, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert torch.equal(state["rivals"], rivals.int())
    unseen = torch.ones(len(data.samples), dtype=torch.bool)
    unseen[index] = False
    assert unseen.any()
    assert torch.equal(state["seen"], torch.where(unseen, 0, epochs))


def fit(data, folder, stop=None, resume=None, every=None):
    """A fit whose checkpoint is written at its end, or after `stop` steps."""
    torch.manual_seed(0)
    model, callback = untrained(), RecordMargins()
    if resume is None:
        torch.manual_seed(0)
    with quiet():
        trainer = Trainer(
            accelerator="cpu", max_epochs=3, max_steps=-1 if stop is None else stop, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0, callbacks=[callback, SeedEachStep()],
        )  # fmt: skip

        class Save(SeedEachStep):
            def on_train_batch_end(self, trainer, module, *_):
                if trainer.global_step == every:
                    trainer.save_checkpoint(folder / "mid.ckpt")

        trainer.callbacks.append(Save())
        trainer.fit(model, datamodule=data, ckpt_path=resume)
        trainer.save_checkpoint(folder / "end.ckpt")
    return callback.state_dict()


@pytest.mark.parametrize("every", [4, 9, 14])
def test_a_resumed_fit_records_the_same_bits(make_data, tmp_path, every):
    """The 9 steps of an epoch: inside one, at the very end of one, inside the next."""
    whole = fit(make_data(seed=0), tmp_path, every=every)
    saved = torch.load(tmp_path / "mid.ckpt", weights_only=True)["callbacks"]["RecordMargins"]
    assert len(saved["losses"]) == (every - 1) // 9
    again = fit(make_data(seed=0), tmp_path, resume=tmp_path / "mid.ckpt")
    assert again.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(value.nan_to_num(nan=-7.0), again[name].nan_to_num(nan=-7.0)), name


def test_every_fit_begins_a_record(make_data, digits):
    callback = RecordMargins()
    other = replace(digits.train, keys=[f"other {key}" for key in digits.train.keys])
    for dataset in (None, VisionData("digits", other, digits.test, digits.classes, digits.mean, digits.std)):
        data = make_data(dataset, seed=0)
        for epochs in (2, 1):
            torch.manual_seed(0)
            fit_quietly(untrained(), data, "train", epochs, {"accelerator": "cpu"}, callbacks=[callback])
            state = callback.state_dict()
            assert len(state["losses"]) == len(state["rivals"]) == int(state["seen"].max()) == epochs
            assert torch.equal(state["hashes"], data.samples.hashes)
    torch.manual_seed(0)
    assert torch.equal(recorded(untrained(), data, 1)["margin_sum"], state["margin_sum"])


def test_a_checkpoint_gives_the_record_of_the_samples_as_they_are_now(make_data, digits, tmp_path):
    data = make_data(seed=0)
    state = fit(data, tmp_path)
    index = data.part("train")[1]
    found = MarginRecord.load(tmp_path / "end.ckpt", data)
    assert torch.equal(found.losses, state["losses"][:, index])
    assert torch.equal(found.margin_sum, state["margin_sum"][index])
    other = copy.copy(data)
    other.samples = copy.copy(data.samples)
    object.__setattr__(other.samples, "targets", (data.samples.targets + 1) % 10)
    with pytest.raises(CheckpointError, match="by other labels"):
        MarginRecord.load(tmp_path / "end.ckpt", other)
    with pytest.raises(CheckpointError, match="a record of other samples"):
        MarginRecord.of({**state, "hashes": state["hashes"] + 1}, data)
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    assert MarginRecord.load(tmp_path / "plain.ckpt", data) is None


def test_a_step_without_logits_is_refused(make_data):
    with pytest.raises(ConfigError, match="no forward pass of Own gave logits"):
        recorded(_silent(), make_data(), 1)


def _silent():
    model = Own(through_self=False)
    model.training_step = lambda batch, batch_idx: F.cross_entropy(model.net(batch.input), batch.target)
    return model


def test_it_is_quiet_in_stages(trained, make_data, make_trainer):
    callback = RecordMargins()
    fresh = make_trainer(callbacks=[callback]).fresh
    run_chain(fresh, trained, make_data(), [FineTune(max_epochs=1, optimizer=sgd(0.01))])
    assert callback.state_dict() == {}


def test_views_of_two_parts_are_refused(make_data):
    callback = RecordMargins()
    with pytest.raises(ConfigError, match="serves 'forget'"):
        fit_quietly(untrained(), make_data(), "forget", 1, {"accelerator": "cpu"}, callbacks=[callback])
