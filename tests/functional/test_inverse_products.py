import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_unlearn.functional.inverse_products import gram_by_columns, inverse_fisher_product


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).double()
    nn.init.uniform_(network[1].running_mean)
    x, labels = torch.randn(150, 1, 4, 4, dtype=torch.float64), torch.randint(4, (150,))
    return network.train(), x, labels


def rows(network, names, x, labels):
    """Per-sample gradients one by one, (N, P)."""
    network.eval()
    own = [network.get_parameter(name) for name in names]
    losses = [F.cross_entropy(network(a[None]), b[None]) for a, b in zip(x, labels, strict=True)]
    grads = torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)]) for loss in losses])
    network.train()
    return grads


@pytest.mark.parametrize("kept_bytes", [2**30, 150 * 8 * 7])
def test_inner_products_in_slices_of_columns(problem, kept_bytes):
    names = ["0.weight", "1.bias", "4.weight"]
    g = rows(problem[0], names, *problem[1:])
    vector = {name: torch.randn_like(problem[0].get_parameter(name)) for name in names}
    products, along = gram_by_columns(problem[0].eval(), *problem[1:], vector, kept_bytes)
    torch.testing.assert_close(products, g @ g.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(along, g @ torch.cat([v.flatten() for v in vector.values()]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("damping", [1e-4, 1.0])
def test_the_product_is_that_of_the_dense_inverse(problem, damping):
    network, x, labels = problem
    names = ["4.bias", "0.weight", "1.weight", "4.weight"]
    g = rows(network, names, x, labels)
    vector = {name: torch.randn_like(network.get_parameter(name)) for name in names}
    flat = torch.cat([value.flatten() for value in vector.values()])
    dense = g.T @ g / len(x) + damping * torch.eye(g.shape[1], dtype=torch.float64)
    found, _ = inverse_fisher_product(network, x, labels, vector, damping)
    torch.testing.assert_close(
        torch.cat([found[name].flatten() for name in names]), torch.linalg.solve(dense, flat), rtol=1e-8, atol=1e-8
    )
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def fit(x, labels, ridge):
    """The minimum of a convex loss, by Newton's method."""
    weight = torch.zeros(3, x.shape[1], dtype=torch.float64)

    def loss(flat):
        return F.cross_entropy(x @ flat.view(3, -1).T, labels) + ridge * flat.square().sum() / 2

    for _ in range(12):
        flat = weight.flatten()
        step = torch.linalg.solve(torch.autograd.functional.hessian(loss, flat), torch.func.grad(loss)(flat))
        weight = (flat - step).view(3, -1)
    return weight


def test_the_step_goes_where_refitting_a_convex_model_goes():
    torch.manual_seed(0)
    n, forgotten, ridge = 3000, 30, 1e-3
    x, truth = torch.randn(n, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    # Labels of the model's own kind, for which the empirical Fisher matrix is the Hessian in the limit.
    labels = torch.multinomial((x @ truth.T).softmax(1), 1).squeeze(1)
    network = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    network.weight.data = fit(x, labels, ridge)
    target = fit(x[forgotten:], labels[forgotten:], ridge)

    def mean_gradient(part):
        return torch.autograd.grad(F.cross_entropy(network(x[part]), labels[part]), network.weight)[0]

    difference = mean_gradient(slice(forgotten)) - mean_gradient(slice(forgotten, None))
    vector = {"weight": forgotten / n * difference}
    step = inverse_fisher_product(network, x[forgotten:], labels[forgotten:], vector, ridge)[0]["weight"]
    wanted = target - network.weight.detach()
    assert F.cosine_similarity(step.flatten(), wanted.flatten(), 0) > 0.99
    assert (step - wanted).norm() < 0.15 * wanted.norm()


@pytest.mark.parametrize(("damping", "count"), [(0.0, 3), (1e-3, 0)])
def test_arguments_are_checked(problem, damping, count):
    network, x, labels = problem
    with pytest.raises(ValueError, match="needed: above 0, and at least one sample"):
        inverse_fisher_product(network, x[:count], labels[:count], {"4.bias": torch.zeros(4)}, damping)
