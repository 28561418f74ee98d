import copy

import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import run_seed
from lightning_unlearn.stages import Influence


def test_the_step_is_that_of_the_dense_inverse(trained, make_data, make_trainer):
    data, weight = make_data(), trained.double().network.fc.weight

    def gradients(part, index=None):
        rows = []
        for batch in data.evaluation_loader(part, index):
            losses = F.cross_entropy(trained(batch.input.double()), batch.target, reduction="none")
            rows += [torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses]
        return torch.stack(rows)

    forget, retain = gradients("forget"), gradients("retain")
    n_f, n_r = len(forget), len(retain)
    n = n_f + n_r
    vector = forget.sum(0) / n - n_f / (n * n_r) * retain.sum(0)
    some = gradients("retain", data.random_part("retain", 40, "influence", run_seed()))
    hessian = some.T @ some / 40 + 1e-2 * torch.eye(some.shape[1], dtype=torch.float64)
    expected = weight.detach().flatten() + 0.5 * torch.linalg.solve(hessian, vector)
    head = ParameterSelector(patterns=["network.fc.weight"])
    stage = Influence(alpha=0.5, damping=1e-2, samples=40, parameters=head, max_retain_drop=100)
    run_chain(make_trainer(precision="64-true").fresh, trained, data, [stage])
    torch.testing.assert_close(trained.network.fc.weight.double().flatten(), expected, rtol=1e-5, atol=1e-7)


def test_the_loss_on_forgotten_samples_rises(trained, make_data, fresh):
    data, losses = make_data(), []
    batch = next(iter(data.evaluation_loader("forget")))
    for _ in range(2):
        losses.append(float(F.cross_entropy(trained(batch.input), batch.target).detach()))
        run_chain(fresh, trained, data, [Influence(alpha=0.1, samples=50)])
    assert losses[1] > losses[0]


@pytest.mark.parametrize("arguments", [{"alpha": 0}, {"damping": 0}, {"samples": 0}])
def test_arguments_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: all above 0"):
        Influence(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"form": "upward"}, {"curvature": "fisher", "solver": "cg"}, {"curvature": "dense"}, {"solver": "lissa"}]
)
def test_forms_and_solvers_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: reweighted, removal or newton; and fisher with the solver exact"):
        Influence(**arguments)


def test_a_matrix_that_is_not_positive_is_refused(trained, make_data, fresh):
    whole = {"curvature": "ggn", "solver": "exact"}
    with pytest.raises(ChainError, match="and the dense matrix takes 4096 at most"):
        run_chain(fresh, trained, make_data(), [Influence(**whole)])
    before = copy.deepcopy(trained.state_dict())
    indefinite = Influence(damping=1e-6, samples=50, curvature="hessian", solver="cg")
    with pytest.raises(ChainError, match=r"eigenvalue of the hessian matrix is at most -.*Raise the damping, or choose ggn"):
        run_chain(fresh, trained, make_data(), [indefinite])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(
    "arguments", [{"form": "newton", "curvature": "hessian", "damping": 10.0, "solver": "cg"}, {"form": "removal"}]
)
def test_the_loss_rises_through_the_whole_network(trained, make_data, fresh, arguments):
    data = make_data()
    batch = next(iter(data.evaluation_loader("forget")))
    before = float(F.cross_entropy(trained(batch.input), batch.target).detach())
    run_chain(fresh, trained, data, [Influence(alpha=0.1, samples=50, **arguments)])
    assert float(F.cross_entropy(trained(batch.input), batch.target).detach()) > before


def _moved(trained, data, fresh, **arguments):
    """How far an influence step of length 8 went, in units of one of length 1, and what the stage says of it."""
    ends = []
    for alpha, drop in ((1.0, 100.0), (8.0, arguments["max_retain_drop"])):
        model, stage = copy.deepcopy(trained), Influence(alpha=alpha, samples=50, max_retain_drop=drop)
        run_chain(fresh, model, data, [stage])
        ends.append(model.network.fc.weight.detach() - trained.network.fc.weight.detach())
    return float(ends[1].norm() / ends[0].norm()), stage.summary()["solver"]["alpha"], model


def test_a_step_that_wrecks_the_network_is_halved(trained, make_data, fresh, caplog):
    data = make_data()
    moved, said, model = _moved(trained, data, fresh, max_retain_drop=5.0)
    assert said in [8.0 / 2**k for k in range(1, 8)]
    assert moved == pytest.approx(said, rel=1e-3)
    assert f"The step is {said:g} in place of 8" in caplog.text

    def accuracy(network):
        batches = list(data.evaluation_loader("retain"))
        return (
            100 * sum(int((network.eval()(b.input).argmax(1) == b.target).sum()) for b in batches) / len(data.part("retain")[1])
        )

    assert accuracy(trained) - accuracy(model) <= 5.0


def test_without_a_budget_the_step_is_the_one_asked_for(trained, make_data, fresh):
    moved, said, _ = _moved(trained, make_data(), fresh, max_retain_drop=100.0)
    assert said == pytest.approx(8.0)
    assert moved == pytest.approx(8.0, rel=1e-3)


def test_where_every_step_costs_too_much_nothing_counts_as_forgotten(trained, make_data, fresh):
    stage, before = Influence(alpha=1e9, samples=50, max_retain_drop=0.0), copy.deepcopy(trained.state_dict())
    with pytest.raises(ChainError, match=r"so nothing was forgotten\. Give a smaller alpha"):
        run_chain(fresh, trained, make_data(), [stage])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
