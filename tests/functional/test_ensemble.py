"""Many networks as one module: equal to the networks one by one in outputs, gradients, statistics and trained weights."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW

from lightning_unlearn.functional.ensemble import HOWS, seconds_per_step, stack, valid_ways
from lightning_unlearn.networks import MLP, ResNet, SmallCNN

K, B = 3, 6
OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
    # With the usual eps, Adam turns the rounding error of a gradient that is zero into a step.
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1, eps=1e-3),
}


class Mobile(nn.Module):
    """Depth-wise, dilated and reflected convolutions, pooling, a layer used twice and statistics without parameters."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect", bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.SiLU(),
            nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
            nn.GroupNorm(2, 8),
            nn.MaxPool2d(2),
        )
        self.twice = nn.Conv2d(8, 8, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 10, bias=False)

    def forward(self, x):
        x = self.body(x)
        x = self.twice(torch.relu(self.twice(x)))
        return self.fc(self.norm(torch.flatten(self.pool(x), 1)))


class Normed(nn.Module):
    """LayerNorm and a parameter of its own: only `vmap` can."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(64))
        self.net = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))

    def forward(self, x):
        return self.net(x.flatten(1) * self.scale)


class Mixing(nn.Module):
    """Normalises over channels, which lie beside those of other networks."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(F.normalize(self.conv(x), dim=1).mean((2, 3)))


def vit():
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, in_chans=1, num_classes=10
    )


NETWORKS = {
    "mlp": lambda: MLP(hidden=(16,)),
    "cnn": lambda: SmallCNN(widths=(4, 6), hidden=8),
    "resnet": lambda: ResNet(in_chans=1, blocks=(1, 1), width=4),
    "resnet_group": lambda: ResNet(in_chans=1, blocks=(1, 1), width=8, norm="group"),
    "resnet_pad": lambda: ResNet(in_chans=1, blocks=(1, 1), width=4, shortcut="pad"),
    "mobile": Mobile,
    "normed": Normed,
    "vit": vit,
}
MERGED = {"mlp", "cnn", "resnet", "resnet_group", "mobile"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def networks(name, count=K):
    return [NETWORKS[name]().double() for _ in range(count)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_right_forms_are_found(name):
    every = {"layers", "layers_last", "vmap", "loop"}
    assert set(valid_ways(networks(name), torch.randn(B, 1, 8, 8))) == (every if name in MERGED else {"vmap", "loop"})


def test_a_network_that_mixes_channels_is_not_merged():
    assert valid_ways([Mixing(), Mixing()], torch.randn(B, 1, 8, 8)) == ["vmap", "loop"]


def test_cumulative_statistics_need_the_number_of_batches_which_vmap_cannot_read():
    def network():
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 10))

    assert valid_ways([network(), network()], torch.randn(B, 1, 8, 8)) == ["layers", "layers_last", "loop"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_equals_a_loop(name, how, optimizer):
    """Three steps in train mode: outputs, gradients, weights and the statistics of BatchNorm."""
    if how.startswith("layers") and name not in MERGED:
        pytest.skip("cannot be merged")
    alone = networks(name)
    ensemble = stack(alone, how=how)
    together = OPTIMIZERS[optimizer](ensemble.parameters())
    singles = [OPTIMIZERS[optimizer](network.parameters()) for network in alone]
    for _ in range(3):
        x, y = torch.randn(K, B, 1, 8, 8, dtype=torch.float64), torch.randint(10, (K, B))
        logits = ensemble(x)
        together.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(K, B).mean(1).sum().backward()
        together.step()
        for k, (network, single) in enumerate(zip(alone, singles, strict=True)):
            expected = network(x[k])
            torch.testing.assert_close(logits[k], expected, rtol=1e-10, atol=1e-10)
            single.zero_grad()
            F.cross_entropy(expected, y[k]).backward()
            single.step()
    for network, found in zip(alone, ensemble.unstack(), strict=True):
        assert type(found) is type(network)
        torch.testing.assert_close(found.state_dict(), network.state_dict(), rtol=1e-9, atol=1e-9)
    gradients = [p.grad for p in ensemble.parameters()]
    norm = sum(float(g.square().sum()) for g in gradients)
    assert norm == pytest.approx(sum(float(p.grad.square().sum()) for n in alone for p in n.parameters()), rel=1e-9)


@pytest.mark.parametrize("how", HOWS)
def test_one_batch_for_all_eval_mode_and_frozen_parts(how):
    alone = networks("resnet")
    for network in alone:
        network.eval()
        network.conv1.weight.requires_grad_(False)
    x = torch.randn(B, 1, 8, 8, dtype=torch.float64)
    ensemble = stack(alone, how=how)
    torch.testing.assert_close(ensemble(x), torch.stack([network(x) for network in alone]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ensemble.tensors()["bn1.running_mean"], torch.stack([n.bn1.running_mean for n in alone]))
    frozen = sum(p.numel() for p in ensemble.parameters() if not p.requires_grad)
    assert frozen == sum(network.conv1.weight.numel() for network in alone)


@pytest.mark.parametrize("how", HOWS)
def test_modules_keep_modes_of_their_own(how):
    alone = networks("resnet")
    for network in alone:
        network.bn1.eval()
    ensemble = stack(alone, how=how)
    x = torch.randn(K, B, 1, 8, 8, dtype=torch.float64)
    ensemble(x)
    before = copy.deepcopy(alone)
    for k, (network, found) in enumerate(zip(alone, ensemble.unstack(), strict=True)):
        network(x[k])
        torch.testing.assert_close(found.state_dict(), network.state_dict())
        assert torch.equal(found.bn1.running_mean, before[k].bn1.running_mean)
        assert not torch.equal(found.layer1[0].bn1.running_mean, before[k].layer1[0].bn1.running_mean)


def test_the_form_is_chosen_by_time_and_draws_nothing():
    alone, example = networks("cnn", 8), torch.randn(B, 1, 8, 8, dtype=torch.float64)
    weights, state = copy.deepcopy(alone[0].state_dict()), torch.get_rng_state()
    assert stack(alone, example).how in HOWS
    assert seconds_per_step(alone, example, "loop") > 0
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(alone[0].state_dict(), weights, rtol=0, atol=0)


def test_dropout_is_refused_where_it_draws():
    alone = [nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)) for _ in range(2)]
    with pytest.raises(ValueError, match="random numbers"):
        valid_ways(alone, torch.randn(B, 1, 8, 8))
    for network in alone:
        network.eval()
    assert "layers" in valid_ways(alone, torch.randn(B, 1, 8, 8))


def test_what_differs_or_is_missing_is_refused():
    with pytest.raises(ValueError, match="no network"):
        stack([])
    with pytest.raises(ValueError, match="Network 1 differs"):
        stack([MLP(), MLP(hidden=(8,))], how="loop")
    with pytest.raises(ValueError, match="Network 1 differs"):
        stack([MLP(), MLP().eval()], how="loop")
    with pytest.raises(ValueError, match="example"):
        stack([MLP()])
    with pytest.raises(ValueError, match="outside a layer"):
        stack([Normed()], how="layers")


def test_shared_parameters_are_not_merged():
    def tied():
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        network[3].weight = network[1].weight
        return network

    assert not {"layers", "layers_last"} & set(valid_ways([tied(), tied()], torch.randn(B, 1, 8, 8)))
