"""The correction of targets against a loop, over two passes."""

from types import SimpleNamespace

import pytest
import torch

from lightning_unlearn.imitation.aim import Aim

ONE_RANK = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1)


def test_targets_move_by_part_of_the_mean_miss_after_each_pass():
    aim = Aim(0.5, ONE_RANK)
    for number, misses in enumerate([[1.0, 3.0, -0.5], [0.4, 0.4], [-9.0]]):
        for miss in misses:
            aim.see(torch.tensor([miss]), number)
            before = [0.0, 0.5 * (1.0 + 2.0 - 0.5) / 3, 0.5 * 2.5 / 3 + 0.5 * 0.4][number]
            assert float(aim.lowered) == pytest.approx(before)


def test_the_first_passes_move_nothing():
    aim = Aim(0.5, ONE_RANK, begin=2)
    for number, miss in enumerate([1.5, 1.0, 0.4, 0.2]):
        aim.see(torch.tensor([miss]), number)
        assert float(aim.lowered) == pytest.approx([0.0, 0.0, 0.0, 0.5 * 0.4][number])


def test_samples_without_odds_move_nothing():
    aim = Aim(1.0, ONE_RANK)
    for number in range(3):
        aim.see(torch.empty(0), number)
    assert torch.equal(aim.lowered, torch.zeros_like(aim.lowered))
