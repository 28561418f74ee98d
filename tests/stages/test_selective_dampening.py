import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import SelectiveDampening
from lightning_unlearn.stages.selective_dampening import dampen


def test_the_formula_element_by_element():
    forget = torch.tensor([0.0, 1.0, 3.0, 8.0, 4.0, 0.0], dtype=torch.float64)
    every = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    for alpha, dampening, expected in ((2.0, 1.0, [1, 1, 1 / 3, 1 / 8, 0, 1]), (2.0, 5.0, [1, 1, 1, 5 / 8, 0, 1])):
        weight = torch.ones(6, dtype=torch.float64)
        chosen = dampen(weight, forget, every, alpha, dampening)
        assert weight.tolist() == pytest.approx(expected)
        assert chosen.tolist() == [False, False, True, True, True, False]


def test_importances_are_means_over_forgotten_and_over_all_samples(trained, make_data, make_trainer):
    data, parameter = make_data(), trained.double().network.fc.weight
    squares = {}
    for part in ("forget", "train"):
        rows = []
        for batch in data.evaluation_loader(part):
            losses = F.cross_entropy(trained(batch.input.double()), batch.target, reduction="none")
            rows += [torch.autograd.grad(loss, parameter, retain_graph=True)[0].square() for loss in losses]
        squares[part] = torch.stack(rows).mean(0)
    chosen = squares["forget"] > 1.5 * squares["train"]
    expected = parameter.detach() * torch.where(chosen, squares["train"] / squares["forget"], 1)
    stage = SelectiveDampening(alpha=1.5, parameters=ParameterSelector(patterns=["network.fc.weight"]))
    [result] = run_chain(make_trainer(precision="64-true").fresh, trained, data, [stage])
    assert result.summary["dampened"] == {"network.fc.weight": pytest.approx(float(chosen.double().mean()))}
    assert 0 < chosen.double().mean() < 1
    torch.testing.assert_close(trained.network.fc.weight.double(), expected, rtol=1e-6, atol=1e-9)


def test_an_alpha_of_all_over_forgotten_samples_changes_nothing(trained, make_data, fresh):
    before, data = trained.network.fc.weight.detach().clone(), make_data()
    n, n_f = (len(data.part(part)[1]) for part in ("train", "forget"))
    run_chain(fresh, trained, data, [SelectiveDampening(alpha=n / n_f * 1.001)])
    assert torch.equal(trained.network.fc.weight, before)


@pytest.mark.parametrize("arguments", [{"alpha": 0}, {"dampening": -1}, {"samples": 0}])
def test_arguments_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: all above 0"):
        SelectiveDampening(**arguments)
