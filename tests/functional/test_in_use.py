import copy

import pytest
import torch
from torch import nn

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.functional.anatomy import head_name, last_hidden, last_stage, weight_layers
from lightning_unlearn.functional.in_use import look_at_calls


class Projected(nn.Module):
    """A head, and a projection for another loss that the logits do not pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)
        self.projection = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        return self.head(self.body(x))


class HeadFirst(nn.Module):
    """Registered in the opposite order of its forward pass; one layer is called by its weight alone."""

    def __init__(self, by_weight=False):
        super().__init__()
        self.fc, self.second, self.first = nn.Linear(8, 10), nn.Linear(16, 8), nn.Linear(64, 16)
        self.by_weight = by_weight

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        x = nn.functional.linear(x, self.second.weight, self.second.bias) if self.by_weight else self.second(x)
        return self.fc(x.relu())


IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_layers_without_part_in_the_output_are_left_out():
    network = Projected().requires_grad_(False).train()
    assert last_hidden(network) == "projection.2"
    output = look_at_calls(network, IMAGES)
    assert not output.requires_grad
    torch.testing.assert_close(output, network.eval()(IMAGES))
    # Also in copies, which know it as part of the module.
    for known in (network, copy.deepcopy(network)):
        assert list(weight_layers(known)) == ["body.1", "head"]
        assert (head_name(known), last_hidden(known), last_stage(known)) == ("head", "body.1", ["body.1"])
    assert set(network.state_dict()) == set(Projected().state_dict())
    assert not any(p.requires_grad for p in network.parameters())


def test_layers_stand_in_the_order_in_which_they_run():
    network = HeadFirst()
    assert last_stage(network) == ["first"]
    look_at_calls(network, IMAGES)
    assert list(weight_layers(network)) == ["first", "second", "fc"]
    assert last_stage(network) == ["second"]
    # Where the place of one is not known, nothing is reordered, and what a gradient reaches is not left out.
    other = HeadFirst(by_weight=True)
    look_at_calls(other, IMAGES)
    assert list(weight_layers(other)) == ["fc", "second", "first"]


def test_what_runs_without_a_graph_is_not_left_out():
    class Frozen(Projected):
        def forward(self, x):
            with torch.no_grad():
                x = self.body(x)
            return self.head(x)

    network = Frozen()
    look_at_calls(network, IMAGES)
    assert list(weight_layers(network)) == ["body.1", "head"]


@pytest.mark.parametrize("method", ["eu_k", "imitate_unseen", "imitate_unseen_light"])
def test_methods_change_what_is_run(method, make_data, fresh):
    torch.manual_seed(0)
    network = Projected()
    before = copy.deepcopy(network.state_dict())
    run_chain(fresh, network, make_data(), load_method(method)())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"body.1.weight", "head.weight"} <= changed
    assert not any(name.startswith("projection") for name in changed)
