"""Masks against explicit arithmetic."""

import pytest
import torch
from torch import nn

from lightning_unlearn.functional.masks import decay, l1_of_scores, masked, masked_call, share_on
from lightning_unlearn.networks import ResNet


def test_the_step_is_forward_and_the_identity_backward():
    scores = torch.tensor([0.01, 0.005, -1.0, 0.006], requires_grad=True)
    weight = torch.tensor([2.0, 3.0, 5.0, 7.0], requires_grad=True)
    found = masked(weight, scores, 0.005)
    assert found.tolist() == [2, 0, 0, 7]
    (found * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert scores.grad.tolist() == [2, 6, 15, 28]
    assert weight.grad.tolist() == [1, 0, 0, 4]


def test_a_frozen_weight_gets_no_gradient():
    scores, weight = torch.randn(3, requires_grad=True), torch.randn(3)
    masked(weight, scores, 0.0).sum().backward()
    assert torch.equal(scores.grad, weight)
    assert weight.grad is None


def test_masks_also_work_under_vmap():
    weight, scores = torch.randn(5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    grads = torch.func.vmap(torch.func.grad(lambda s: masked(weight, s, 0.0).sum()))(scores)
    assert torch.equal(grads, weight.expand(3, 5))


def test_share_and_norm_count_over_all_tensors():
    masks = [torch.tensor([1.0, 0, 0]), torch.tensor([[True]])]
    assert share_on(masks).item() == pytest.approx(0.5)
    assert share_on(masks[0]).item() == pytest.approx(1 / 3)
    assert l1_of_scores([torch.tensor([-1.0, 2.0]), torch.tensor([[3.0]])]).item() == 6
    with pytest.raises(ValueError, match="at least one element"):
        share_on([])


def test_a_masked_call_is_a_call_of_the_edited_network():
    torch.manual_seed(0)
    network = ResNet(blocks=(1, 1), width=8).double().eval().requires_grad_(False)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores = {name: torch.randn_like(p).requires_grad_() for name, p in network.named_parameters() if "layer2" in name}
    before = {k: v.clone() for k, v in network.state_dict().items()}
    out = masked_call(network, scores, 0.0, x)
    out.square().sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    edited = ResNet(blocks=(1, 1), width=8).double().eval()
    edited.load_state_dict({k: v * (scores[k] > 0) if k in scores else v for k, v in before.items()})
    expected = edited(x)
    expected.square().sum().backward()
    assert torch.equal(out, expected)
    own = dict(edited.named_parameters())
    for name, score in scores.items():
        torch.testing.assert_close(score.grad, own[name].grad * before[name], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="'body'"):
        masked_call(network, {"body": x}, 0.0, x)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_decay_changes_masked_elements_and_keeps_the_bits_of_others(kind):
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(2, 2, 3, 3))]
    weights[0].data[0, 0] = float("inf")
    masks = [torch.rand_like(w).gt(0.5) for w in weights]
    masks[0][0, 0] = False
    before = [w.detach().clone() for w in weights]
    decay(weights, [mask.to(kind) for mask in masks], 0.0)
    for weight, mask, old in zip(weights, masks, before, strict=True):
        assert torch.equal(weight[mask], torch.zeros_like(weight[mask]))
        assert torch.equal(weight[~mask], old[~mask])


def test_decay_without_masks_and_with_wrong_ones():
    weights = [torch.ones(3), torch.ones(2, 2)]
    decay(weights, None, 0.3)
    assert all(torch.equal(w, torch.full_like(w, 0.3)) for w in weights)
    decay([], None, 0.3)
    with pytest.raises(ValueError, match="needed: one of the same shape each"):
        decay(weights, [torch.ones(3)], 0.5)
    with pytest.raises(ValueError, match="needed: one of the same shape each"):
        decay(weights, [torch.ones(3), torch.ones(4)], 0.5)
