"""Every formula against gradients one by one in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_unlearn.functional.inverse_products import gram, gram_by_columns
from lightning_unlearn.functional.layer_gram import layer_gram
from lightning_unlearn.functional.modes import differentiable_in


class Attention(nn.Module):
    """Tokens, a parameter that belongs to no layer, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(1, 6, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 9, 6))
        self.norm = nn.LayerNorm(6)
        self.twice = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).mT + self.position
        tokens = self.norm(self.twice(self.twice(tokens).tanh()))
        return self.head(tokens.tanh()).mean(1)


class Doubled(nn.Linear):
    """A linear layer that is none."""

    def forward(self, x):
        return super().forward(x) * 2 + F.linear(x.square(), self.weight)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.head(self.two(self.one(x.flatten(1)).tanh()))


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(inplace=True), nn.Linear(5, 3, bias=False)), 0),
    "wide convolution": (lambda: nn.Sequential(nn.Conv2d(1, 40, 6), nn.Tanh(), nn.Flatten(), nn.Linear(40, 3)), 0),
    "strided convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, dilation=1),
                              nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 3)),
        0,
    ),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(36, 3)), 2),
    "circular": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1, padding_mode="circular"), nn.Flatten(), nn.Linear(72, 3)), 2),
    "plane norm": (lambda: nn.Sequential(nn.LayerNorm((6, 6)), nn.Flatten(), nn.Linear(36, 3)), 2),
    "attention": (Attention, 3),
    "no formula": (lambda: nn.Sequential(nn.Flatten(), Doubled(36, 4), nn.Tanh(), nn.Linear(4, 3)), 2),
    "shared": (Shared, 2),
}  # fmt: skip


@pytest.mark.parametrize("kept_bytes", [2**30, 20_000], ids=["at once", "in groups"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_those_of_gradients_one_by_one(name, kept_bytes):
    torch.manual_seed(0)
    make, left_over = NETWORKS[name]
    network = make().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean), nn.init.uniform_(module.running_var)
    x, labels = torch.randn(21, 1, 6, 6, dtype=torch.float64), torch.randint(3, (21,))
    own = dict(network.named_parameters())
    vector = {name: torch.randn_like(p) for name, p in own.items()}
    with differentiable_in(network, list(own)):
        rows = []
        for image, label in zip(x, labels, strict=True):
            grads = torch.autograd.grad(F.cross_entropy(network(image[None]), label[None]), list(own.values()))
            rows.append(torch.cat([g.flatten() for g in grads]))
        g = torch.stack(rows)
        products, along, runs = gram(network, x, labels, vector, kept_bytes)
        left, passes = layer_gram(network, x, labels, vector, kept_bytes)[2:]
        by_columns = gram_by_columns(network, x, labels, vector)
    torch.testing.assert_close(products, g @ g.T, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(along, g @ torch.cat([v.flatten() for v in vector.values()]), rtol=1e-8, atol=1e-10)
    for ours, materialised in zip((products, along), by_columns, strict=True):
        torch.testing.assert_close(ours, materialised, rtol=1e-8, atol=1e-10)
    if kept_bytes > 20_000:
        assert len(left) == left_over
        assert runs == passes + (left_over > 0) == 1 + (left_over > 0)


def test_some_parameters_of_a_layer():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, labels = torch.randn(9, 1, 6, 6, dtype=torch.float64), torch.randint(3, (9,))
    for names in (["1.bias"], ["3.weight"], ["1.weight", "3.bias"]):
        vector = {name: torch.randn_like(network.get_parameter(name)) for name in names}
        with differentiable_in(network, names):
            ours = gram(network, x, labels, vector)
            other = gram_by_columns(network, x, labels, vector)
        torch.testing.assert_close(ours[0], other[0], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(ours[1], other[1], rtol=1e-8, atol=1e-10)


def test_samples_that_depend_on_each_other_are_not_served_by_formulas():
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(36, 3)).double()
    vector = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    x, labels = torch.randn(9, 1, 6, 6, dtype=torch.float64), torch.randint(3, (9,))
    with differentiable_in(network, list(vector)):
        assert set(layer_gram(network, x, labels, vector, 2**30)[2]) == set(vector)


def test_a_layer_without_a_gradient_at_the_first_samples_is_not_taken_on_trust():
    """Its formula cannot be compared with anything there, and this one is not that of a plain convolution."""

    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = Standardised(1, 2, 3), nn.Linear(2, 3)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)) * (x.mean((1, 2, 3)) > 0).to(x)[:, None])

    network = Gated().double().eval()
    x = torch.randn(6, 1, 5, 5, dtype=torch.float64)
    x = x - x.mean((1, 2, 3), keepdim=True) + torch.tensor([-1.0, -1, 1, 1, 1, 1], dtype=torch.float64).view(-1, 1, 1, 1)
    vector = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    _, _, left, _ = layer_gram(network, x, torch.arange(6) % 3, vector, 2**30)
    assert "conv.weight" in left
