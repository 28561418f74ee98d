"""Weight edits of the late places of the NeurIPS 2023 challenge."""

import copy

import pytest
import torch
from torch import nn

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import RedrawSmallest, TransposeKernels
from lightning_unlearn.stages.redraw_smallest import redraw_smallest


def test_kernels_see_in_columns_what_they_saw_in_rows(trained_resnet, make_data, fresh):
    before = copy.deepcopy(trained_resnet).eval()
    run_chain(fresh, trained_resnet, make_data(), [TransposeKernels()])
    for name, weight in trained_resnet.named_parameters():
        old = dict(before.named_parameters())[name]
        assert torch.equal(weight, old.transpose(2, 3) if weight.dim() == 4 else old)
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(trained_resnet(x.transpose(2, 3)), before(x))
    assert not torch.allclose(trained_resnet(x), before(x))
    run_chain(fresh, trained_resnet, make_data(), [TransposeKernels()])
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in trained_resnet.state_dict().items())


def test_only_square_kernels_are_transposed(make_data, fresh):
    model = nn.Sequential(nn.Conv2d(1, 2, (1, 3)), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(96, 10))
    with pytest.raises(ChainError, match="no square kernel"):
        run_chain(fresh, model, make_data(), [TransposeKernels()])


def test_the_smallest_of_all_tensors_are_drawn_anew(trained_resnet, make_data, fresh):
    before = {name: p.detach().clone() for name, p in trained_resnet.named_parameters()}
    run_chain(fresh, trained_resnet, make_data(), [RedrawSmallest(0.9)])
    fans = {n: p[0].numel() for n, p in before.items() if p.dim() > 1} | {"network.linear.bias": 16}
    sizes = torch.cat([before[name].abs().flatten() for name in fans])
    limit = sizes.sort().values[round(0.9 * len(sizes)) - 1]
    for name, weight in trained_resnet.named_parameters():
        if name not in fans:  # BatchNorm's
            assert torch.equal(weight, before[name])
            continue
        kept = before[name].abs() > limit
        assert torch.equal(weight[kept], before[name][kept])
        new = weight[~kept]
        assert (new != before[name][~kept]).all()
        assert (new.abs() <= fans[name] ** -0.5).all()
    biases = dict(trained_resnet.named_parameters())["network.linear.bias"]
    assert not torch.equal(biases, before["network.linear.bias"])


def test_draws_are_uniform_within_the_bound_of_the_layer():
    weights = {"a": torch.randn(200, 400) * 1e-3, "b": torch.randn(300, 100) * 1e-3 + 5}
    new = redraw_smallest(weights, {"a": 400, "b": 100}, 80_000 / 110_000, torch.Generator().manual_seed(0))
    assert new["a"].all()
    assert not new["b"].any()
    drawn = weights["a"].flatten()
    assert float(drawn.abs().max()) == pytest.approx(0.05, rel=1e-2)
    assert float(drawn.mean()) == pytest.approx(0, abs=5e-4)
    assert float(drawn.var()) == pytest.approx(0.1**2 / 12, rel=0.02)


def test_one_head_may_be_selected(trained_resnet, make_data, fresh):
    stage = RedrawSmallest(0.5, ParameterSelector(parts=["head"]))
    before = copy.deepcopy(trained_resnet.state_dict())
    run_chain(fresh, trained_resnet, make_data(), [stage])
    changed = {name for name, value in trained_resnet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"network.linear.weight", "network.linear.bias"}
    with pytest.raises(ChainError, match="share is 1"):
        RedrawSmallest(1)


def test_shared_weights_and_weights_made_of_others(make_data, fresh):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = (torch.nn.Linear(64, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 10))
            self.b.weight = self.a.weight
            torch.nn.utils.parametrizations.weight_norm(self.head)

        def forward(self, x):
            return self.head(self.b(self.a(x.flatten(1)).relu()).relu())

    stage = RedrawSmallest(0.5)
    assert stage.choose(Net()) == ["a.weight", "a.bias", "b.bias", "head.bias"]
    run_chain(fresh, Net(), make_data(), [stage])
