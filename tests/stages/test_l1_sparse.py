import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import L1Sparse
from lightning_unlearn.stages.l1_sparse import penalty_of_epoch


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ("constant", [4, 4, 4, 4, 0, 0]),
        ("decaying", [4, 3, 2, 1, 0, 0]),
        ("growing", [1, 2, 3, 4, 0, 0]),
    ],
)
def test_the_courses_of_the_penalty(course, expected):
    assert [penalty_of_epoch(4.0, course, e, 6, 2) for e in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("course", ["constant", "growing", "decaying"])
def test_the_weights_are_those_of_a_plain_loop(course, trained, make_data, make_trainer):
    data, model = make_data(), copy.deepcopy(trained).double()
    stage = L1Sparse(0.01, course, free_epochs=1, max_epochs=3, optimizer=sgd(0.02, momentum=0.9))
    run_chain(make_trainer(precision="64-true").fresh, trained, data, [stage])
    data.serve("retain", salt="0/L1Sparse")
    optimizer = sgd(0.02, momentum=0.9)(list(model.parameters()))
    gammas = {"constant": (0.01, 0.01, 0), "growing": (0.005, 0.01, 0), "decaying": (0.01, 0.005, 0)}[course]
    for epoch, gamma in enumerate(gammas):
        for pieces in data.train_dataloader().plan.steps(epoch):
            index = pieces["retain"].index
            x = torch.cat([batch.input for batch in data.evaluation_loader("retain", index)]).double()
            loss = F.cross_entropy(model(x), data.samples.targets[index])
            loss = loss + gamma * sum(p.abs().sum() for p in model.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name].double(), value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("arguments", [{"penalty": 0}, {"free_epochs": 3, "max_epochs": 3}, {"free_epochs": -1}])
def test_arguments_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: above 0, and at least one epoch"):
        L1Sparse(**arguments)
