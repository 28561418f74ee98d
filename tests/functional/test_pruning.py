import pytest
import torch
from torch import nn

from lightning_unlearn.functional.pruning import largest, synflow


def test_the_largest_of_all_tensors_together():
    torch.manual_seed(0)
    scores = {"a": torch.rand(3, 4), "b": torch.rand(7), "c": 10 * torch.rand(2, 2, 2)}
    masks = largest(scores, 0.3)
    ranked = sorted((float(v), name, i) for name, s in scores.items() for i, v in enumerate(s.flatten()))[::-1]
    chosen = {(name, i) for _, name, i in ranked[: round(0.3 * 27)]}
    assert {(n, i) for n, m in masks.items() for i in m.flatten().nonzero().flatten().tolist()} == chosen
    assert {name: mask.shape for name, mask in masks.items()} == {name: score.shape for name, score in scores.items()}


def test_equal_scores_give_the_exact_share():
    assert largest({"a": torch.zeros(10), "b": torch.zeros(10)}, 0.25)["a"].tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kinds", [1, 3, 1000])
def test_ranks_are_those_of_a_stable_sort(dtype, kinds):
    """Few kinds of scores: many ties, signed zeros and infinities among them."""
    source = torch.Generator().manual_seed(kinds)
    flat = torch.randint(-kinds, kinds + 1, (301,), generator=source).to(dtype) / 7
    flat[::50], flat[1::60], flat[2::40] = -torch.inf, torch.inf, -0.0
    for count in (0, 1, 2, 7, 100, 150, 151, 200, 299, 300, 301):
        expected = torch.zeros(301, dtype=torch.bool)
        expected[flat.argsort(descending=True, stable=True)[:count]] = True
        assert torch.equal(torch.cat([*largest({"a": flat[:100], "b": flat[100:]}, count / 301).values()]), expected), count


def test_what_is_no_number_has_no_rank():
    with pytest.raises(ValueError, match="A score is not a number"):
        largest({"a": torch.tensor([1.0, torch.nan])}, 0.5)


@pytest.mark.parametrize(("scores", "share"), [({"a": torch.ones(2)}, 1.1), ({}, 0.5)])
def test_shares_are_checked(scores, share):
    with pytest.raises(ValueError, match="needed: 0 to 1, of at least one tensor"):
        largest(scores, share)


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)]
    made = nn.Sequential(*layers).train()
    nn.init.uniform_(made[1].weight, -2, 2)
    nn.init.uniform_(made[1].running_mean, -2, 2)
    return made


def paths(network, masks, ones):
    """SynFlow's scores by brute force: how R falls when a weight is taken out, since R is linear in each one."""

    def flow(values):
        h = torch.conv2d(ones, values["0.weight"], values["0.bias"]).flatten(1)
        h = h @ values["4.weight"].T + values["4.bias"]
        return (h @ values["6.weight"].T + values["6.bias"]).sum()

    values = {name: p.detach().double().abs() * masks.get(name, 1) for name, p in network.named_parameters()}
    whole, scores = flow(values), {}
    for name in masks:
        scores[name] = torch.zeros_like(values[name])
        for i in range(values[name].numel()):
            without = {**values, name: values[name].clone()}
            without[name].view(-1)[i] = 0
            scores[name].view(-1)[i] = whole - flow(without)
    return scores


def test_synflow_is_what_brute_force_prunes(network):
    names, rounds, sparsity = ["0.weight", "4.weight"], 3, 0.8
    masks = {name: torch.ones_like(network.get_parameter(name), dtype=torch.bool) for name in names}
    total = sum(mask.numel() for mask in masks.values())
    for k in range(1, rounds + 1):
        scores = paths(network, masks, torch.ones(1, 2, 4, 4, dtype=torch.float64))
        flat = torch.cat([torch.where(masks[n], scores[n], -1).flatten() for n in names])
        kept = set(flat.argsort(descending=True)[: round(0.2 ** (k / rounds) * total)].tolist())
        on = torch.tensor([i in kept for i in range(total)])
        masks = {n: part.view(masks[n].shape) for n, part in zip(names, on.split([54, 60]), strict=True)}
    found = synflow(network, (2, 4, 4), names, sparsity, rounds)
    assert all(torch.equal(found[name], masks[name]) for name in names)
    assert sum(int(mask.sum()) for mask in found.values()) == round(0.2 * total)


def test_synflow_leaves_the_network_as_it_was_and_knows_no_sign(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = synflow(network, (2, 4, 4), ["0.weight", "4.weight"], 0.9, 10)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    with torch.no_grad():
        network[0].weight.neg_()
    second = synflow(network, (2, 4, 4), ["0.weight", "4.weight"], 0.9, 10)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_synflow_keeps_every_layer_where_magnitude_cuts_one_off(network):
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
        for layer in (network[0], network[4]):
            layer.bias.zero_()  # what flows from biases passes the layer by
    names = ["0.weight", "4.weight"]
    assert not largest({n: network.get_parameter(n).abs() for n in names}, 0.1)["0.weight"].any()
    assert all(mask.any() for mask in synflow(network, (2, 4, 4), names, 0.9, 100).values())


@pytest.mark.parametrize(("sparsity", "rounds"), [(1.0, 10), (-0.1, 10), (0.5, 0)])
def test_synflow_checks_its_arguments(network, sparsity, rounds):
    with pytest.raises(ValueError, match="needed: 0 to below 1, and at least one round"):
        synflow(network, (2, 4, 4), ["0.weight"], sparsity, rounds)


def test_synflow_takes_out_every_normalisation():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 4)]
    with_norm, without = nn.Sequential(*layers), nn.Sequential(layers[0], nn.Identity(), layers[2])
    names = ["0.weight", "2.weight"]
    found, expected = (synflow(network, (6,), names, 0.8) for network in (with_norm, without))
    assert all(torch.equal(found[name], expected[name]) for name in names)
