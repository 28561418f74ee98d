"""Fisher diagonals against a loop over single samples by plain autograd, in float64."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from lightning_unlearn.functional.fisher import diagonal_fisher
from lightning_unlearn.functional.layer_squares import rule_for
from lightning_unlearn.functional.per_sample import SquaredGradients
from lightning_unlearn.networks import MLP, ResNet, SmallCNN


def by_hand(network, x, labels, kind):
    """One sample at a time, one label at a time, nothing but autograd."""
    network.eval()
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    own = list(network.parameters())
    for n in range(len(x)):
        logits = network(x[n : n + 1])
        p = logits.detach().softmax(1)[0]
        targets = range(len(p)) if kind == "model" else [int(labels[n])]
        for y in targets:
            loss = F.cross_entropy(logits, torch.tensor([y]))
            grads = torch.autograd.grad(loss, own, retain_graph=True, materialize_grads=True)
            for name, grad in zip(total, grads, strict=True):
                total[name] += (p[y] if kind == "model" else 1) * grad**2
    return total


def check(network, x, kind="empirical", split=(3, 4), names=None, rtol=1e-5):
    torch.manual_seed(1)
    x = x.double()
    network = network.double()
    for module in network.modules():  # statistics and affine weights away from their start
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    labels = torch.randint(0, 3, (len(x),))
    expected = by_hand(network, x, labels, kind)
    batches = list(zip(x.split(list(split)), labels.split(list(split)), strict=True))
    sums, count = diagonal_fisher(network, batches, kind, names)
    assert count == len(x)
    assert list(sums) == (list(expected) if names is None else names)
    for name, value in sums.items():
        assert value.dtype == torch.float64
        assert value.shape == expected[name].shape
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(
            value, expected[name], rtol=rtol, atol=1e-9 * scale + 1e-25, msg=lambda m, name=name: f"{name}: {m}"
        )
    return sums


def ways(network, x):
    """How each parameter is served: a hidden fallback would be right, but slow."""
    squares = SquaredGradients(network.double().eval(), [name for name, _ in network.named_parameters()])
    return squares._choose(x.double())


IMAGES = {
    "mlp": (lambda: MLP(3, hidden=(9, 7)), (1, 8, 8)),
    "cnn": (lambda: SmallCNN(3), (1, 8, 8)),
    "resnet8 batch": (lambda: ResNet(3, width=8), (3, 16, 16)),
    "resnet8 group": (lambda: ResNet(3, width=8, norm="group", shortcut="pad"), (3, 16, 16)),
}


@pytest.mark.parametrize("kind", ["empirical", "model"])
@pytest.mark.parametrize("key", IMAGES)
def test_networks_of_this_package(key, kind):
    torch.manual_seed(0)
    make, shape = IMAGES[key]
    network = make()
    check(network, torch.randn(7, *shape), kind)
    plan = ways(network, torch.randn(3, *shape))
    assert not plan.by_vmap
    assert not plan.whole


def conv_net(convolution, channels, then=None):
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Tanh(),
        convolution,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 3),
    )


CONVOLUTIONS = {
    "plain": nn.Conv2d(8, 6, 3),
    "strided": nn.Conv2d(8, 6, 3, stride=2, padding=1),
    "stride does not fit": nn.Conv2d(8, 6, 3, stride=3),
    "dilated": nn.Conv2d(8, 6, 3, dilation=2, padding=2),
    "uneven": nn.Conv2d(8, 6, (3, 1), stride=(1, 2), padding=(1, 0), bias=False),
    "grouped": nn.Conv2d(8, 6, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(8, 16, 3, groups=8, padding=1),
    "pointwise": nn.Conv2d(8, 6, 1, groups=2),
    "patches": nn.Conv2d(8, 6, 4, stride=4),
    "same": nn.Conv2d(8, 6, 4, padding="same"),
    "valid": nn.Conv2d(8, 6, 3, padding="valid"),
    "reflect": nn.Conv2d(8, 6, 3, padding=(1, 2), padding_mode="reflect"),
    "circular same": nn.Conv2d(8, 6, 4, padding="same", padding_mode="circular"),
}


SAME = "ignore:Using padding='same' with even kernel:UserWarning"  # torch's own remark on what is tested here
SLOW = "ignore:There is a performance drop because:UserWarning"  # vmap over weight norm works, by a loop


@pytest.mark.filterwarnings(SAME)
@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize("key", CONVOLUTIONS)
def test_convolutions(key, size):
    torch.manual_seed(0)
    layer = CONVOLUTIONS[key]
    network = conv_net(layer, layer.out_channels)
    check(network, torch.randn(7, 3, size, size), split=(6, 1))
    plan = ways(network, torch.randn(2, 3, size, size))
    assert not plan.by_vmap
    assert not plan.whole


@pytest.mark.filterwarnings(SAME)
@pytest.mark.parametrize("method", ["_by_columns", "_by_grouped_convolution"])
@pytest.mark.parametrize("key", CONVOLUTIONS)
def test_both_ways_through_a_convolution_agree(monkeypatch, key, method):
    from lightning_unlearn.functional import layer_squares

    monkeypatch.setattr(layer_squares, "_columns_are_faster", lambda *_: method == "_by_columns")
    monkeypatch.setattr(layer_squares, "_CPU_BYTES", 2**14)  # several blocks of samples
    layer = CONVOLUTIONS[key]
    torch.manual_seed(0)
    check(conv_net(layer, layer.out_channels), torch.randn(7, 3, 9, 9), split=(7,))


def test_one_dimension_and_other_dimensions():
    torch.manual_seed(0)
    sequence = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1, groups=2),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Conv1d(4, 4, 4, padding="same"),
        nn.Flatten(),
        nn.Linear(36, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, 3),
    )
    check(sequence, torch.randn(7, 2, 9))
    assert not ways(sequence, torch.randn(2, 2, 9)).by_vmap
    volume = nn.Sequential(
        nn.Conv3d(1, 4, 3),
        nn.BatchNorm3d(4),
        nn.GroupNorm(2, 4),
        nn.ConvTranspose3d(4, 2, 2),
        nn.Flatten(),
        nn.Linear(54, 3),
    )
    check(volume, torch.randn(7, 1, 4, 4, 4))
    plan = ways(volume, torch.randn(2, 1, 4, 4, 4))
    assert {name for name in plan.modules if name in plan.by_vmap or not rule_for(volume.get_submodule(name))} == {"0", "3"}
    assert not plan.whole


def test_tokens_and_layer_norms_of_several_dimensions():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 6),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Linear(6, 4, bias=False),
        nn.LayerNorm((3, 4)),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    check(network, torch.randn(7, 2, 3, 5), "model")
    assert not ways(network, torch.randn(2, 2, 3, 5)).by_vmap


@pytest.mark.parametrize("kind", ["empirical", "model"])
def test_vision_transformer(kind):
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        num_classes=3,
        embed_dim=12,
        num_heads=2,
        depth=2,
        init_values=0.5,
    )
    check(network, torch.randn(7, 3, 16, 16), kind)
    plan = ways(network, torch.randn(2, 3, 16, 16))
    assert plan.copied == ["cls_token", "pos_embed"]
    assert not plan.whole


def test_convnext():
    torch.manual_seed(0)
    network = timm.create_model("convnext_atto", num_classes=3, dims=(4, 6, 8, 8), depths=(1, 1, 1, 1))
    check(network, torch.randn(7, 3, 32, 32))
    assert not ways(network, torch.randn(2, 3, 32, 32)).whole


def test_attention_of_torch():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
    network = nn.Sequential(nn.Linear(4, 8), block, nn.Flatten(), nn.Linear(24, 3))
    check(network, torch.randn(7, 3, 4))


class Odd(nn.Module):
    """Everything that formulas would get wrong: a module used twice, a tied weight, changes in place, samples not first."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.also = nn.Linear(6, 6, bias=False)
        self.also.weight = self.tied.weight
        self.borrowed = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.unused = nn.Linear(2, 2)
        self.sequence_first = nn.Linear(6, 6)
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.act = nn.ReLU(inplace=True)
        self.before = nn.LayerNorm(6)  # some torch releases give a Linear's output as a view, which in-place steps re-attach
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.before(x)
        x *= 2
        x = self.act(x)
        x = self.twice(self.twice(x)).tanh()
        x = self.also(self.tied(x)).tanh() * self.scale
        x = x + F.linear(self.borrowed(x), self.borrowed.weight).tanh()
        x = self.sequence_first(x.transpose(0, 1)).transpose(0, 1)
        return self.fc(self.norm(x).mean(1))


@pytest.mark.filterwarnings(SLOW)
@pytest.mark.parametrize("tokens", [2, 5])
@pytest.mark.parametrize("kind", ["empirical", "model"])
def test_what_no_formula_covers_is_found_out(kind, tokens):
    torch.manual_seed(0)
    network = Odd()
    sums = check(network, torch.randn(7, tokens, 6), kind)
    assert sums["unused.weight"].count_nonzero() == 0
    plan = ways(network, torch.randn(2, tokens, 6))
    assert {"twice", "tied", "borrowed", "sequence_first"}.isdisjoint(plan.modules)
    assert {"before", "fc"} <= plan.modules.keys() - plan.by_vmap


class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        x = self.a(x) * self.scale
        return self.fc(x if x.sum().item() > 0 else -x)


class Standardised(nn.Linear):
    """A linear layer whose formula does not hold for it."""

    def forward(self, x):
        w = self.weight
        return F.linear(x, (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True), self.bias)


def test_a_wrong_formula_is_found_out_where_the_first_samples_are_sure():
    """Of classes 0 and 1, with margins at which float32 leaves no gradient at the label."""
    torch.manual_seed(0)
    x, network = torch.randn(6, 5), nn.Sequential(Standardised(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        hidden = network[:2](x[:2])
        rows = torch.linalg.pinv(torch.cat([hidden, torch.ones(2, 1)], 1)) @ torch.tensor([[60.0, 0, 0], [0, 60.0, 0]])
        network[2].weight.copy_(rows[:4].T)
        network[2].bias.copy_(rows[4])
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    found = diagonal_fisher(network, [(x, y)])[0]["0.weight"]
    expected = torch.zeros_like(found)
    for i in range(6):
        [g] = torch.autograd.grad(F.cross_entropy(network.double()(x[i : i + 1].double()), y[i : i + 1]), network[0].weight)
        expected += g.float().square()
    network.float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


def test_a_forward_that_vmap_refuses_is_done_sample_by_sample():
    torch.manual_seed(0)
    network = nn.Sequential(Asking(), nn.Identity())
    x = torch.randn(7, 4)
    plan = ways(network, x)
    assert plan.loop
    # A branch on the batch is not a function of each sample, so it is only compared one by one.
    check(network, x, split=(1,) * 7)


def test_a_part_of_a_frozen_network_and_its_state():
    torch.manual_seed(0)
    network = ResNet(3, width=4).double().train().requires_grad_(False)
    network.layer1.eval()
    network.linear.bias.requires_grad_(True).grad = torch.ones(3, dtype=torch.float64)
    modes = [m.training for m in network.modules()]
    state = {k: v.clone() for k, v in network.state_dict().items()}
    names = ["layer3.0.conv1.weight", "layer3.0.bn2.weight", "linear.weight"]
    x, y = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.arange(5) % 3
    with torch.no_grad():
        sums, _ = diagonal_fisher(network, [(x, y)], names=names)
    assert [m.training for m in network.modules()] == modes
    assert [n for n, p in network.named_parameters() if p.requires_grad] == ["linear.bias"]
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert torch.equal(network.linear.bias.grad, torch.ones(3, dtype=torch.float64))
    assert not any(m._forward_hooks for m in network.modules())
    whole, _ = diagonal_fisher(network, [(x, y)])
    for name in names:
        torch.testing.assert_close(sums[name], whole[name], rtol=1e-10, atol=0)
    assert not sums[names[0]].requires_grad

    def broken():
        yield x, y
        raise KeyError

    with pytest.raises(KeyError):
        diagonal_fisher(network, broken())
    assert [m.training for m in network.modules()] == modes
    assert [n for n, p in network.named_parameters() if p.requires_grad] == ["linear.bias"]


def test_batches_of_one_and_none_and_order_do_not_matter():
    torch.manual_seed(0)
    network = SmallCNN(3).double()
    x, y = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    whole, count = diagonal_fisher(network, [(x, y)])
    parts = [(x[3:4], y[3:4]), (x[:0], y[:0]), (x[:3], y[:3]), (x[4:], y[4:])]
    several, also = diagonal_fisher(network, parts)
    assert count == also == 6
    for name, value in whole.items():
        torch.testing.assert_close(several[name], value, rtol=1e-10, atol=1e-25)


def test_drawn_labels_converge_to_the_model():
    torch.manual_seed(0)
    network = MLP(3, image_size=2, hidden=(4,)).double()
    x, y = torch.randn(4, 1, 2, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    exact, _ = diagonal_fisher(network, [(x, y)], "model")
    many = (x.repeat(5000, 1, 1, 1), y.repeat(5000))
    generator = torch.Generator().manual_seed(0)
    drawn, count = diagonal_fisher(network, [many], "model_mc", generator=generator)
    assert count == 20000
    for name, value in drawn.items():
        assert ((value / 5000 - exact[name]).norm() / exact[name].norm()).item() < 0.03
    again, _ = diagonal_fisher(network, [many], "model_mc", generator=generator.manual_seed(0))
    assert all(torch.equal(again[name], value) for name, value in drawn.items())


@pytest.mark.parametrize("kind", ["empirical", "model"])
def test_squares_of_batch_means(kind):
    torch.manual_seed(0)
    network = SmallCNN(3).double()
    x, y = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for a, b in batches:
        p = network(a).detach().softmax(1)
        for k in range(3) if kind == "model" else [None]:
            network.zero_grad()
            F.cross_entropy(network(a), b if k is None else torch.full_like(b, k)).backward()
            for name, q in network.named_parameters():
                expected[name] += q.grad**2 * (1 if k is None else p[:, k].mean())
    network.zero_grad()
    sums, count = diagonal_fisher(network, batches, kind, per_sample=False)
    assert count == 2
    for name, value in sums.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-25)
    assert all(p.grad is None for p in network.parameters())


def test_float32_under_autocast_is_within_the_budget_of_float64():
    torch.manual_seed(0)
    network = ResNet(3, width=8)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, _ = diagonal_fisher(network, [(x, y)])
    exact, _ = diagonal_fisher(network.double(), [(x, y)])
    for name, value in sums.items():
        assert value.dtype == torch.float32
        assert ((value - exact[name]).norm() / exact[name].norm()).item() < 1e-5


def test_sure_samples_keep_their_gradients_in_float32():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3))
    network[0].weight.data *= 40
    x = torch.randn(32, 4)
    y = network(x).argmax(1)
    for kind in ("empirical", "model"):
        sums, _ = diagonal_fisher(network.float(), [(x, y)], kind)
        exact, _ = diagonal_fisher(network.double(), [(x, y)], kind)
        for name, value in sums.items():
            torch.testing.assert_close(value.double(), exact[name], rtol=1e-3, atol=0)


def test_blocks_of_samples_add_up(monkeypatch):
    from lightning_unlearn.functional import per_sample

    torch.manual_seed(0)
    network = ResNet(3, width=8).double()
    x, y = torch.randn(40, 3, 8, 8, dtype=torch.float64), torch.arange(40) % 3
    whole, _ = diagonal_fisher(network, [(x, y)])
    monkeypatch.setattr(per_sample, "_CPU_BYTES", 1)
    squares = per_sample.SquaredGradients(network.eval(), ["linear.bias"])
    assert squares._choose(x).at_once == 16
    parts, count = diagonal_fisher(network, [(x, y)])
    assert count == 40
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-20)


def test_two_classes_and_one():
    torch.manual_seed(0)
    x = torch.randn(5, 4, dtype=torch.float64)
    for classes in (1, 2):
        network = nn.Sequential(nn.Linear(4, classes)).double()
        sums, _ = diagonal_fisher(network, [(x, x)], "model")
        p = network(x).detach().softmax(1)
        each = (p * (1 - p))[:, :, None] * x[:, None] ** 2 if classes == 2 else torch.zeros(5, 1, 4, dtype=torch.float64)
        torch.testing.assert_close(sums["0.weight"], each.sum(0))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="needed: 'empirical'"):
        diagonal_fisher(MLP(), [], "exact")
    with pytest.raises(ValueError, match="'body'"):
        diagonal_fisher(MLP(), [], names=["body"])
    with pytest.raises(ValueError, match="no parameter"):
        diagonal_fisher(nn.Identity(), [])
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="track_running_stats=True"):
        diagonal_fisher(network, [(torch.randn(3, 4), torch.zeros(3, dtype=torch.int64))])
