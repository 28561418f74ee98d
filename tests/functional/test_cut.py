"""The halves of a cut network give its output to the bit, share its parameters, cost what they should."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_unlearn.functional.cut import cut, cut_cost
from lightning_unlearn.functional.structure import parameters_of
from lightning_unlearn.networks import MLP, ResNet, SmallCNN


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=5, embed_dim=24, num_heads=3)


def convnext():
    return timm.create_model("convnext_atto", num_classes=5, dims=(8, 16, 24, 32))


NETWORKS = {
    "mlp": (lambda: MLP(hidden=(16, 8)), (1, 8), 0.2),
    "cnn": (SmallCNN, (1, 8), 0.95),
    "resnet8": (ResNet, (3, 32), 0.5),
    "resnet8 pad": (lambda: ResNet(norm="group", shortcut="pad"), (3, 32), 0.5),
    "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=5), (3, 32), 0.5),
    "torchvision resnet18": (torchvision.models.resnet18, (3, 32), 0.5),
    "vit": (vit, (3, 32), 0.3),
    "convnext": (convnext, (3, 64), 0.5),
}


def prepared(key):
    make, (channels, size), limit = NETWORKS[key]
    torch.manual_seed(0)
    network = make().eval()
    return network, torch.randn(3, channels, size, size), limit


@pytest.mark.parametrize("part", ["last_stage", "head"])
@pytest.mark.parametrize("key", NETWORKS)
def test_halves_equal_the_whole_to_the_bit(key, part):
    network, x, limit = prepared(key)
    names = parameters_of(network, part)
    found = cut(network, names, x[:1])
    assert found is not None
    with torch.no_grad():
        features = found.prefix(x)
        kept = features.clone()
        assert torch.equal(found.tail(features), network(x))
        assert torch.equal(features, kept), "the tail changed the kept features"
    own = dict(network.named_parameters())
    assert all(own[name] is p for name, p in found.tail.named_parameters())
    assert set(names) <= {name for name, _ in found.tail.named_parameters()}
    assert {name for name, _ in found.prefix.named_parameters()}.isdisjoint(names)
    assert 0 < found.share < limit
    assert found.share == cut_cost(found, x[:1])


def test_gradients_of_the_tail_are_those_of_the_network():
    network, x, _ = prepared("resnet8")
    names = parameters_of(network, "last_stage")
    found = cut(network, names)
    own = [dict(network.named_parameters())[name] for name in names]
    with torch.no_grad():
        features = found.prefix(x)
    expected = torch.autograd.grad(network(x).logsumexp(1).sum(), own)
    actual = torch.autograd.grad(found.tail(features).logsumexp(1).sum(), own)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert math.isnan(found.share)


def test_a_residual_block_is_not_cut_inside():
    network, x, _ = prepared("resnet8")
    late = cut(network, ["layer3.0.conv2.weight"])
    whole = cut(network, ["layer3.0.conv1.weight"])
    assert set(dict(late.tail.named_parameters())) == set(dict(whole.tail.named_parameters()))
    assert torch.equal(late.tail(late.prefix(x)), network(x))


def test_share_of_a_chain_is_counted_by_hand():
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    found = cut(network, ["4.weight"], torch.randn(1, 8))
    assert found.share == pytest.approx(4 * 2 / (8 * 6 + 6 * 4 + 4 * 2))


def test_no_cut_where_nothing_comes_before():
    assert cut(MLP(), ["layers.0.0.weight"]) is None
    assert cut(ResNet(), ["conv1.weight"]) is None
    assert cut(vit(), ["patch_embed.proj.bias"]) is None


def test_a_parameter_of_the_network_itself_counts_from_its_use():
    network, x, _ = prepared("vit")
    found = cut(network, ["pos_embed"])
    assert [name for name, _ in found.prefix.named_parameters()] == [
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    ]
    assert torch.equal(found.tail(found.prefix(x)), network(x))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.fc(x if x.sum() > 0 else -x)


class BranchingBlock(Branching):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.skip = nn.Conv2d(1, 4, 3)


class TwoTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.c(a) + b.sum(1, keepdim=True)


def test_what_cannot_be_recorded_or_separated_gives_none():
    assert cut(Branching(), ["fc.weight"]) is None
    assert cut(TwoTensors(), ["c.weight"]) is None


def test_a_branch_on_values_outside_the_selection_does_no_harm():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 1, 1), BranchingBlock(), nn.Linear(4, 2))
    x = torch.randn(2, 1, 8, 8)
    found = cut(network, ["2.weight"])
    assert torch.equal(found.tail(found.prefix(x)), network(x))
    found = cut(network, ["1.fc.weight"])  # recorded as a whole: cut before it
    assert [name for name, _ in found.prefix.named_parameters()] == ["0.weight", "0.bias"]
    assert torch.equal(found.tail(found.prefix(x)), network(x))


class InPlaceTail(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout()

    def forward(self, x):
        x = self.a(x)
        h = self.b(x)
        x = self.drop(x).view(-1, 2, 2)
        x += 1
        return h + x.sum(2)


def test_kept_features_survive_a_tail_that_writes_in_place():
    torch.manual_seed(0)
    network = InPlaceTail().eval()
    x = torch.randn(3, 4)
    found = cut(network, ["b.weight"])
    with torch.no_grad():
        features = found.prefix(x)
        first = found.tail(features)
        assert torch.equal(first, found.tail(features))
        assert torch.equal(first, network(x))


def test_cost_leaves_modes_and_statistics_alone():
    network, x, _ = prepared("resnet8")
    network.train()
    network.layer1.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    cut(network, parameters_of(network, "head"), x)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="'body', which MLP does not have"):
        cut(MLP(), ["body"])
    with pytest.raises(ValueError, match="at least one parameter"):
        cut(MLP(), [])
