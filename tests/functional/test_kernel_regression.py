"""Kernel regression: against dense algebra, against a wide network, and without the sample itself."""

import math

import pytest
import torch
from torch import nn

from lightning_unlearn.functional.kernel_regression import KernelRidge, relu_tangent_kernel


def _samples(n, dim=5, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=source, dtype=torch.float64)


def test_kernel_is_that_of_a_wide_relu_layer():
    a, b = _samples(4), _samples(3, seed=1)
    width = 200_000
    torch.manual_seed(0)
    first = torch.randn(width, 5, dtype=torch.float64)
    head = torch.randn(width, dtype=torch.float64)
    hidden = nn.functional.relu
    # Gradients by the head (activations) and by the first layer (head * step * input), scaled as in Jacot et al.
    by_head = hidden(a @ first.T) @ hidden(b @ first.T).T
    steps = ((a @ first.T > 0).double() * head) @ ((b @ first.T > 0).double() * head).T
    wide = 2 * (by_head + steps * (a @ b.T)) / width
    assert torch.allclose(relu_tangent_kernel(a, b), wide, rtol=0.05, atol=0.1)


def test_equal_and_opposite_samples_are_within_the_domain_of_the_angle():
    a = _samples(3)
    kernel = relu_tangent_kernel(torch.cat([a, -a]), a)
    assert torch.allclose(kernel[:3].diagonal(), 2 * (a * a).sum(1))
    assert torch.allclose(kernel[3:].diagonal(), torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert bool(kernel.isfinite().all())


def test_a_sample_of_the_bank_is_predicted_as_if_it_were_not_there():
    bank, labels = _samples(12), torch.arange(12) % 3
    own = KernelRidge(bank, labels, 3, 0.1).of_bank()
    # The same by leaving each one out in turn; ridge and temperature are those of the whole bank.
    kernel = relu_tangent_kernel(bank, bank)
    ridge = 0.1 * kernel.diagonal().mean() * torch.eye(12)
    wanted = nn.functional.one_hot(labels, 3).double() - 1 / 3
    scores = torch.empty(12, 3, dtype=torch.float64)
    for i in range(12):
        rest = [j for j in range(12) if j != i]
        weights = torch.linalg.solve((kernel + ridge)[rest][:, rest], wanted[rest])
        scores[i] = kernel[i, rest] @ weights
    # One temperature makes the one of the other.
    ratios = (own.double().log() - own.double().log().mean(1, keepdim=True)) / (scores - scores.mean(1, keepdim=True))
    assert torch.allclose(ratios, ratios[0, 0].expand_as(ratios), rtol=1e-3)


def test_probabilities_of_new_samples_follow_the_labels_near_them():
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    found = KernelRidge(bank, torch.tensor([0, 0, 1, 1]), 2, 0.01).of(torch.tensor([[1.0, 0.05], [0.05, 1.0]]))
    assert found.dtype == torch.float32
    assert torch.allclose(found.sum(1), torch.ones(2))
    assert found.argmax(1).tolist() == [0, 1]
    assert float(found.max()) > 0.9


def test_temperature_tells_wrong_labels_from_right_ones():
    bank = _samples(200, dim=3)
    truth = (bank[:, 0] > 0).long()
    noise = torch.rand(200, generator=torch.Generator().manual_seed(2)) < 0.3
    clean = KernelRidge(bank, truth, 2, 1.0).of_bank()
    noisy = KernelRidge(bank, torch.where(noise, 1 - truth, truth), 2, 1.0).of_bank()
    assert float(noisy.max(1).values.mean()) < float(clean.max(1).values.mean()) - 0.1
    assert math.isclose(float(noisy.sum()), 200, rel_tol=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_of_features_does_not_matter(scale):
    bank, labels = _samples(20), torch.arange(20) % 4
    assert torch.allclose(
        KernelRidge(bank * scale, labels, 4, 0.1).of_bank(),
        KernelRidge(bank, labels, 4, 0.1).of_bank(),
        atol=1e-4,
    )


def test_features_that_say_nothing_give_no_answer():
    found = KernelRidge(torch.zeros(8, 3), torch.arange(8) % 4, 4, 0.1).of(torch.zeros(2, 3))
    assert torch.allclose(found, torch.full((2, 4), 0.25))


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not finite"), (0.0, "cannot be inverted with ridge -1")])
def test_what_cannot_be_inverted_is_named(value, message):
    bank = torch.full((4, 3), value)
    with pytest.raises(ValueError, match=f"4 labelled samples .*{message}"):
        KernelRidge(bank, torch.tensor([0, 1, 0, 1]), 2, ridge=-1 if value == 0 else 0.1)


def test_one_labelled_sample_is_too_few():
    with pytest.raises(ValueError, match="1 labelled samples are too few; needed: at least two"):
        KernelRidge(torch.ones(1, 3), torch.tensor([0]), 2, 0.1)
