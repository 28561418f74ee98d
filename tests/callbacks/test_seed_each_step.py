from types import SimpleNamespace

import torch

from lightning_unlearn.callbacks.seed_each_step import SeedEachStep


def drawn(monkeypatch, seed=0, epoch=0, batch=0, rank=0):
    monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    SeedEachStep().on_train_batch_start(trainer, None, None, batch)
    return torch.rand(4)


def test_numbers_are_a_function_of_seed_epoch_batch_and_rank(monkeypatch):
    first = drawn(monkeypatch)
    torch.rand(11)
    assert torch.equal(drawn(monkeypatch), first)
    others = [drawn(monkeypatch, **{name: 1}) for name in ("seed", "epoch", "batch", "rank")]
    assert all(not torch.equal(other, first) for other in others)
    assert len({tuple(other.tolist()) for other in others}) == 4
