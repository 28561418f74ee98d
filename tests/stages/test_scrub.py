import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import Scrub


def kl(teacher, student, t):
    p = (teacher / t).softmax(1)
    return t * t * (p * (p.log() - (student / t).log_softmax(1))).sum(1)


@pytest.mark.parametrize("ceiling", [None, 0.3])
def test_scrub_against_a_plain_loop(ceiling, trained_resnet, make_data, fresh):
    """The first of two rounds goes away from the original; one optimiser keeps its momentum through both passes."""
    data, model = make_data(forget_batch_size=8), copy.deepcopy(trained_resnet)
    settings = {"temperature": 2.0, "retain_weight": 0.9, "distil_weight": 0.5, "ceiling": ceiling}
    stage = Scrub(rounds=2, forget_rounds=1, optimizer=sgd(0.01, momentum=0.9), **settings)
    run_chain(fresh, model, data, [stage])
    original, plain, above = copy.deepcopy(trained_resnet).eval(), trained_resnet.train(), []
    optimizer = sgd(0.01, momentum=0.9)(list(plain.parameters()))
    limit = 4 * math.log(10) if ceiling is None else ceiling
    for epoch in range(2):
        for batch in steps(data, stage, epoch):
            (name, part), = batch.items()  # fmt: skip
            if name == "forget" and epoch == 1:
                continue
            with torch.no_grad():
                teacher = original(part.input)
            logits = plain(part.input)
            divergence = kl(teacher, logits, 2.0)
            if name == "forget":
                above += (divergence > limit).tolist()
                loss = -torch.where(divergence < limit, divergence, divergence.detach()).mean()
            else:
                loss = 0.9 * F.cross_entropy(logits, part.target) + 0.5 * divergence.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert set(above) == ({False} if ceiling is None else {False, True})
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_default_ceiling_is_that_of_a_sure_original_and_an_answer_at_chance(trained_resnet, make_data, fresh):
    limit, found = 3.0**2 * math.log(10), []

    class Given(Scrub):
        def _divergence(self, logits, batch):
            return torch.linspace(0, 2 * limit, len(logits)) + 0 * logits.sum(1)

        def forget_objective(self, batch):
            loss = super().forget_objective(batch)
            found.append((len(batch["forget"].target), loss.item()))
            return loss

    run_chain(fresh, trained_resnet, make_data(), [Given(temperature=3.0)])
    assert found
    for n, loss in found:
        assert loss == pytest.approx(-sum(min(limit, 2 * limit * i / (n - 1)) for i in range(n)) / n, rel=1e-5)


def test_arguments_are_checked():
    with pytest.raises(ChainError, match="temperature is 0"):
        Scrub(temperature=0)
