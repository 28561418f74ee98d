"""Influence functions against refitting, where the loss is convex: logistic regression with an L2 penalty, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.functional.curvature import curvature_product, dense_curvature, inverse_curvature_product
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import Influence

RIDGE = 1e-2
CLASSES = 10
HEAD = ParameterSelector(parts=["head"])


def refit(x, labels, weights, start, ridge=RIDGE):
    """The minimum of sum_i w_i CE_i + ridge / 2 |theta|^2, by Newton's method from a warm start; (K, D)."""
    head = nn.Linear(x.shape[1], CLASSES, bias=False, dtype=torch.float64)
    head.weight.data = start.clone()
    repeated = weights / weights.sum()
    for _ in range(30):
        losses = F.cross_entropy(head(x), labels, reduction="none")
        gradient = torch.autograd.grad(losses @ weights, head.weight)[0] + ridge * head.weight.detach()
        if float(gradient.norm()) < 1e-13:
            break
        hessian = sum_of_curvatures(head, x, labels, repeated) * weights.sum()
        hessian.diagonal().add_(ridge)
        head.weight.data -= torch.linalg.solve(hessian, gradient.flatten()).view_as(gradient)
    return head.weight.data


def sum_of_curvatures(head, x, labels, weights):
    """The weighted mean of the samples' Hessians in the head, written out: kron(diag(p) - p p^T, x x^T)."""
    p = head(x).softmax(1).detach()
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    blocks = torch.einsum("n,nkl,ni,nj->kilj", weights, inner, x, x)
    return blocks.reshape(CLASSES * x.shape[1], -1)


@pytest.fixture(scope="module")
def problem(digits):
    """300 digits, 20 of whose 64 pixels are looked at, 30 with wrong labels; the fitted head."""
    x = digits.train.images.double().flatten(1)[:, 10:54:2] / 255
    labels = digits.train.targets.clone()
    labels[:30] = (labels[:30] + 1) % CLASSES
    n = len(x)
    weight = refit(x, labels, torch.full((n,), 1 / n, dtype=torch.float64), torch.zeros(CLASSES, x.shape[1]).double())
    head = nn.Linear(x.shape[1], CLASSES, bias=False, dtype=torch.float64)
    head.weight.data = weight
    return head, x, labels


def predicted(head, x, labels, forget, scale, rows, ridge=RIDGE, iterations=None):
    """The step of the stage: scale * sum over D_f of (H + ridge)^-1 grad CE."""
    gradient = torch.autograd.grad(F.cross_entropy(head(x[forget]), labels[forget], reduction="sum"), head.weight)[0]
    vector = {"weight": scale * gradient}
    return inverse_curvature_product(head, x[rows], labels[rows], vector, ridge, "hessian", iterations)[0]["weight"]


def test_the_curvature_is_that_of_the_formula(problem):
    head, x, labels = problem
    even = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    torch.testing.assert_close(dense_curvature(head, x, labels, ["weight"]), sum_of_curvatures(head, x, labels, even))
    # The fit has converged, or nothing below says anything.
    loss = F.cross_entropy(head(x), labels) + RIDGE / 2 * head.weight.square().sum()
    assert float(torch.autograd.grad(loss, head.weight)[0].norm()) < 1e-12


@pytest.mark.parametrize("count", [1, 30])
def test_the_error_of_the_prediction_is_of_second_order(problem, count):
    """Forgotten samples lose a share of their weight: half the share, a quarter of the error."""
    head, x, labels = problem
    n, forget = len(x), slice(0, count)
    step = predicted(head, x, labels, forget, 1 / n, slice(None))
    errors = {}
    for share in (1.0, 0.5, 0.25):
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        weights[forget] *= 1 - share
        change = refit(x, labels, weights, head.weight.data) - head.weight.data
        errors[share] = float((share * step - change).norm())
        assert F.cosine_similarity(step.flatten(), change.flatten(), 0) > 0.95
    assert 3.0 < errors[1.0] / errors[0.5] < 6.0
    assert 3.3 < errors[0.5] / errors[0.25] < 5.0
    assert errors[1.0] < {1: 0.1, 30: 0.4}[count] * float(step.norm())


def test_newton_ends_nearer_to_refitting_than_the_first_order(problem):
    head, x, labels = problem
    n, forget, retain = len(x), slice(0, 30), slice(30, None)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    weights[forget] = 0
    change = refit(x, labels, weights, head.weight.data) - head.weight.data
    # The mean over D_r counts each sample n / n_r times as much: so does its penalty.
    share = n / (n - 30)
    newton = predicted(head, x, labels, forget, share / n, retain, RIDGE * share)
    first = predicted(head, x, labels, forget, 1 / n, slice(None))
    assert float((newton - change).norm()) < 0.7 * float((first - change).norm())
    assert float((newton - change).norm()) < 0.25 * float(change.norm())


def test_predicted_and_true_changes_of_the_total_loss_rank_alike(problem):
    """50 samples, each left out in turn; the total loss is that of all training samples."""
    head, x, labels = problem
    n = len(x)
    before = F.cross_entropy(head(x), labels, reduction="sum")
    slope = torch.autograd.grad(before, head.weight)[0]
    before = before.detach()
    found, true = [], []
    for i in range(5, 55):
        step = predicted(head, x, labels, slice(i, i + 1), 1 / n, slice(None))
        curved = curvature_product(head, x, labels, {"weight": step}, "hessian")["weight"]
        found.append(float((slope * step).sum() + n / 2 * (curved * step).sum()))
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        weights[i] = 0
        true.append(float(F.cross_entropy(x @ refit(x, labels, weights, head.weight.data).T, labels, reduction="sum") - before))
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (found, true)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.95


@pytest.mark.parametrize(("form", "solver"), [("removal", "exact"), ("newton", "cg"), ("reweighted", "exact")])
def test_the_stage_goes_where_refitting_the_last_layer_goes(trained, make_data, make_trainer, form, solver):
    data, model = make_data(), copy.deepcopy(trained).double()
    samples, train = data.part("train")
    head = model.network.fc
    images = torch.cat([batch.input for batch in data.evaluation_loader("train")]).double()
    with torch.no_grad():
        features = model.network.hidden(model.network.features(images))
    x = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    labels, n = samples.targets[train], len(train)
    even = torch.full((n,), 1 / n, dtype=torch.float64)
    start = torch.cat([head.weight.data, head.bias.data[:, None]], 1)
    fitted = refit(x, labels, even, start, 0.05)
    head.weight.data, head.bias.data = fitted[:, :-1].clone(), fitted[:, -1].clone()
    forgotten = torch.isin(train, data.part("forget")[1])
    aim = refit(x, labels, even * ~forgotten, fitted, 0.05) - fitted
    damping = 0.05 * (1 if form == "removal" else n / int((~forgotten).sum()))
    stage = Influence(1.0, damping, n, HEAD, form, "ggn", solver, max_retain_drop=100)
    losses = [float(F.cross_entropy(x[forgotten] @ fitted.T, labels[forgotten]))]
    run_chain(make_trainer(precision="64-true").fresh, model, data, [stage])
    new = torch.cat([model.network.fc.weight.data, model.network.fc.bias.data[:, None]], 1).double()
    change = new - fitted
    assert float((change - aim).norm()) < {"removal": 0.35, "newton": 0.15, "reweighted": 0.35}[form] * float(aim.norm())
    losses.append(float(F.cross_entropy(x[forgotten] @ new.T, labels[forgotten])))
    assert losses[1] > losses[0]
    assert 0 < stage.summary()["solver"]["products"] <= 330
