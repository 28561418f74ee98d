import math

import pytest
import torch
import torch.nn.functional as F
from helpers import untrained

from lightning_unlearn.functional.mnemonic import forgetting_step, mean_squared_gradient


def by_hand(forget, retain, lambda1, lambda2):
    """The step of one tensor, entry by entry in Python's floats."""
    ratios = []
    for f, r in zip(forget, retain, strict=True):
        try:
            ratios.append(math.exp(math.log(f + 1e-16) - math.log(r + 1e-16)))
        except (ValueError, OverflowError):
            ratios.append(math.nan)
    largest = max((n for n in ratios if math.isfinite(n)), default=1.0)
    ratios = [1.0 if math.isnan(n) else n for n in ratios]
    return [min(lambda1, lambda2 / largest) * n for n in ratios]


@pytest.mark.parametrize("lambdas", [(1e-3, 10.0), (1e-5, 1e4), (0.5, 1e-3), (1e-4, 1.0)])
def test_the_step_against_a_plain_loop(lambdas):
    torch.manual_seed(0)
    forget, retain = (10 ** -(30 * torch.rand(200, dtype=torch.float64)) for _ in range(2))
    forget[:3], retain[1:4] = 0.0, 0.0
    step = forgetting_step(forget.view(20, 10), retain.view(20, 10), *lambdas)
    expected = torch.tensor(by_hand(forget.tolist(), retain.tolist(), *lambdas), dtype=torch.float64)
    torch.testing.assert_close(step.flatten(), expected, rtol=1e-9, atol=0)
    assert step.max() <= lambdas[1] * (1 + 1e-12)


def test_what_is_no_number_counts_as_one_and_infinity_as_the_largest():
    forget = torch.tensor([4.0, math.nan, math.inf, 2.0], dtype=torch.float64)
    retain = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    assert forgetting_step(forget, retain, 0.1, 10.0).tolist() == pytest.approx([0.4, 0.1, 0.4, 0.1])
    # Weights that nothing depends on: 0 / 0.
    assert forgetting_step(torch.zeros(3), torch.zeros(3), 0.1, 10.0).tolist() == pytest.approx([0.1] * 3)
    assert forgetting_step(torch.full((2,), math.nan), torch.ones(2), 0.1, 10.0).tolist() == pytest.approx([0.1] * 2)


@pytest.mark.parametrize("network", ["SmallCNN", "ResNet"])
def test_mean_squared_gradients_against_autograd(network):
    model = untrained(network).double().train()
    model.network.requires_grad_(False)
    images, labels = torch.rand(4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 3, 9])
    names = [name for name, _ in model.named_parameters()]
    calls = []
    handle = model.register_forward_hook(lambda module, inputs, output: calls.append((len(inputs[0]), output.requires_grad)))
    found = mean_squared_gradient(model, images, labels, names)
    handle.remove()
    # One forward and one backward pass for each image, and nothing else.
    assert calls == [(1, True)] * 4
    assert model.training
    assert not any(p.requires_grad for p in model.network.parameters())
    model.eval().requires_grad_(True)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(4):
        grads = torch.autograd.grad(F.cross_entropy(model(images[i : i + 1]), labels[i : i + 1]), list(model.parameters()))
        for name, grad in zip(names, grads, strict=True):
            total[name] += grad.square() / 4
    for name in names:
        torch.testing.assert_close(found[name], total[name], rtol=1e-9, atol=1e-25)


def test_a_network_that_is_sure_still_has_a_gradient():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(3, 4) * 25)
    image = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2)
    found = mean_squared_gradient(network, image, torch.tensor([0]), ["1.weight"])["1.weight"]
    # p of the others is e^-25 each; float32 rounds p_y to 1, and p_y - 1 to 0.
    assert found[0, 0] == pytest.approx((2 * math.exp(-25)) ** 2, rel=1e-4)
