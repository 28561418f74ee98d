"""Batches of many models at once: for each of them those that it gets alone."""

import pytest
import torch
from lightning.pytorch import seed_everything

from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.batch import Batch

SEEDS = (3, 0, 7)


def alone(make_data, run_seed, view, **kwargs):
    data = make_data(view=view, **kwargs)
    seed_everything(run_seed, verbose=False)
    return list(data.train_dataloader())


@pytest.mark.parametrize(
    "kwargs", [{}, {"augmentation": Augmentation(2)}, {"resident": False}, {"seed": 5, "augmentation": Augmentation(1)}]
)
@pytest.mark.parametrize("view", ["train", "both", "both_equal", "forget_then_retain"])
def test_each_model_gets_its_own_order_and_augmentation(view, kwargs, make_data):
    data = make_data(**kwargs)
    before = data.serve(view, seeds=SEEDS)
    together = list(data.train_dataloader())
    assert len(together) == len(data.train_dataloader())
    for k, seed in enumerate(SEEDS):
        for mine, expected in zip(together, alone(make_data, seed, view, **kwargs), strict=True):
            pairs = [(mine, expected)] if isinstance(mine, Batch) else [(mine[name], expected[name]) for name in expected]
            for a, b in pairs:
                assert torch.equal(a.input[k], b.input)
                assert torch.equal(a.target[k], b.target)
                assert torch.equal(a.index[k], b.index)
                assert a.total == b.total
    data.serving = before
    assert isinstance(next(iter(data.train_dataloader())).index, torch.Tensor)
    assert next(iter(data.train_dataloader())).index.dim() == 1


def test_orders_differ_unless_the_data_has_a_seed(make_data):
    data = make_data()
    data.serve("train", seeds=SEEDS)
    first = next(iter(data.train_dataloader())).index
    assert not torch.equal(first[0], first[1])
    data.seed = 1
    first = next(iter(data.train_dataloader())).index
    assert first.shape[0] == len(SEEDS)
    assert torch.equal(first[0], first[1])


def test_without_images(make_data):
    data = make_data()
    data.serve("retain", images=False, seeds=SEEDS)
    batch = next(iter(data.train_dataloader()))
    assert batch.input.shape == (3, batch.index.shape[1], 0)
