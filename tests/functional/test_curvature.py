import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from lightning_unlearn.functional import curvature
from lightning_unlearn.functional.curvature import (
    conjugate_gradient,
    curvature_product,
    dense_curvature,
    flatten,
    inverse_curvature_product,
    unflatten,
)

NAMES = ["4.bias", "0.weight", "1.weight", "4.weight"]


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    nn.init.uniform_(network[1].running_mean)
    return network.train(), torch.randn(30, 1, 4, 4, dtype=torch.float64), torch.randint(3, (30,))


def oracle(network, x, labels, names, kind):
    """The matrix from whole Jacobians and torch's own Hessian, (P, P)."""
    network.eval()
    own = {name: network.get_parameter(name).detach() for name in names}

    def logits(flat):
        return functional_call(network, unflatten(flat, own), (x,))

    flat = flatten(own)
    if kind == "hessian":
        matrix = torch.autograd.functional.hessian(lambda flat: F.cross_entropy(logits(flat), labels), flat)
    else:
        jacobian, p = torch.autograd.functional.jacobian(logits, flat), logits(flat).softmax(1)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        matrix = torch.einsum("nkp,nkl,nlq->pq", jacobian, inner, jacobian) / len(x)
    network.train()
    return matrix.detach()


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_product_and_matrix_are_those_of_whole_jacobians(problem, kind, monkeypatch):
    monkeypatch.setattr(curvature, "_CHUNK", 7)
    monkeypatch.setattr(curvature, "_COLUMNS", 10)
    network, x, labels = problem
    dense = oracle(network, x, labels, NAMES, kind)
    vector = {name: torch.randn_like(network.get_parameter(name)) for name in NAMES}
    found = curvature_product(network, x, labels, vector, kind)
    torch.testing.assert_close(flatten(found), dense @ flatten(vector), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(dense_curvature(network, x, labels, NAMES, kind), dense, rtol=1e-9, atol=1e-10)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_both_matrices_agree_where_logits_are_linear(problem):
    network, x, labels = problem
    last = ["4.weight", "4.bias"]
    matrices = [dense_curvature(network, x, labels, last, kind) for kind in ("hessian", "ggn")]
    torch.testing.assert_close(*matrices, rtol=1e-9, atol=1e-12)


def test_conjugate_gradients_reach_the_dense_solution():
    half = torch.randn(12, 20, dtype=torch.float64)
    matrix, b = half.T @ half, torch.randn(20, dtype=torch.float64)
    x, products, negative = conjugate_gradient(lambda v: matrix @ v, b, 0.1, 100, 1e-12)
    assert negative is None
    torch.testing.assert_close(x, torch.linalg.solve(matrix + 0.1 * torch.eye(20, dtype=torch.float64), b))
    # Thirteen different eigenvalues: as many steps but for rounding.
    assert 5 < products <= 20
    assert conjugate_gradient(lambda v: matrix @ v, b, 0.1, 3)[1] == 3


def test_conjugate_gradients_end_where_curvature_is_not_positive():
    matrix = torch.diag(torch.tensor([1.0, -5.0], dtype=torch.float64))
    x, products, negative = conjugate_gradient(lambda v: matrix @ v, torch.ones(2, dtype=torch.float64), 0.0, 10)
    assert products == 1
    assert negative == pytest.approx(-2)  # of the direction (1, 1)
    assert torch.equal(x, torch.zeros(2, dtype=torch.float64))
    assert conjugate_gradient(lambda v: v, torch.zeros(3), 1.0, 10)[1] == 0


@pytest.mark.parametrize("iterations", [None, 200])
@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_the_inverse_product_is_that_of_the_dense_inverse(problem, kind, iterations):
    network, x, labels = problem
    dense = oracle(network, x, labels, NAMES, kind)
    vector = {name: torch.randn_like(network.get_parameter(name)) for name in NAMES}
    damping = 0.1 + max(0.0, -float(torch.linalg.eigvalsh(dense)[0]))
    expected = torch.linalg.solve(dense + damping * torch.eye(len(dense), dtype=torch.float64), flatten(vector))
    found, products = inverse_curvature_product(network, x, labels, vector, damping, kind, iterations)
    torch.testing.assert_close(flatten(found), expected, rtol=1e-3 if iterations else 1e-9, atol=1e-3 if iterations else 1e-9)
    assert list(found) == NAMES
    assert 0 < products <= len(dense)


def test_what_cannot_be_inverted_is_refused(problem, monkeypatch):
    network, x, labels = problem
    vector = {name: torch.randn_like(network.get_parameter(name)) for name in NAMES}
    with pytest.raises(ValueError, match="Raise the damping, or choose ggn"):
        inverse_curvature_product(network, x, labels, vector, -1.0, "ggn")
    with pytest.raises(ValueError, match=r"eigenvalue of the ggn matrix is at most -\d.* Raise the damping, or choose ggn"):
        inverse_curvature_product(network, x, labels, vector, -1.0, "ggn", 50)
    monkeypatch.setattr(curvature, "_DENSE", 10)
    with pytest.raises(ValueError, match="the dense matrix takes 10 at most"):
        inverse_curvature_product(network, x, labels, vector, 1.0, "ggn")
