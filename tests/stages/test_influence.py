import copy

import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.chain import run_chain
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
    stage = Influence(alpha=0.5, damping=1e-2, samples=40, parameters=ParameterSelector(patterns=["network.fc.weight"]))
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
