"""UNSIR: noise that maximises an error, a pass that impairs, a pass that repairs."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.random import at_stage, generator
from lightning_unlearn.stages import ErrorMaximisingNoise, FineTune, Impair, Repair

CLASSES = [3, 5]


def learn_by_hand(model, label, count, rounds, penalty):
    """Adam at 0.1 on minus the error of a class, written out."""
    noise = torch.randn(count, 1, 8, 8, generator=generator(f"noise of class {label}")).double()
    first, second = torch.zeros_like(noise), torch.zeros_like(noise)
    for t in range(1, rounds + 1):
        noise = noise.detach().requires_grad_()
        errors = [F.cross_entropy(model(image[None]), torch.tensor([label])) for image in noise]
        loss = -sum(errors) / count + penalty * sum((image**2).sum() for image in noise) / count
        [grad] = torch.autograd.grad(loss, [noise])
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        noise = noise - 0.1 * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    return noise.detach()


def test_the_noise_against_a_plain_loop(trained, make_data, make_trainer):
    data, model = make_data(forget=WholeClasses(CLASSES)), trained.double()
    stage = ErrorMaximisingNoise(count=4, steps=6, penalty=0.1)
    before = copy.deepcopy(model.state_dict())
    [result] = run_chain(make_trainer(precision="64-true").fresh, model, data, [stage])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for label in CLASSES:
        expected = learn_by_hand(model, label, 4, 6, 0.1)
        torch.testing.assert_close(stage.artifacts["noise"][str(label)], expected, rtol=1e-6, atol=1e-8)
    assert result.work == 2 * 6 * 4 * 3


def test_one_step_of_impairing_against_a_plain_one(trained, make_data, make_trainer):
    data, model = make_data(forget=WholeClasses(CLASSES)), trained.double()
    noise = ErrorMaximisingNoise(count=4, steps=1)
    impair = Impair(noise_per_class=3, batch_size=20, optimizer=sgd(0.1), max_steps=1)
    expected = copy.deepcopy(model)
    run_chain(make_trainer(precision="64-true").fresh, model, data, [noise, impair])
    with at_stage(1):
        source = generator("impair 0")
        drawn = [noise.artifacts["noise"][str(label)][torch.randint(4, (3,), generator=source)] for label in CLASSES]
    images, labels = torch.cat(drawn), torch.tensor(CLASSES).repeat_interleave(3)
    batch = next(steps(data, impair, 0, position=1))["retain"]
    expected.train()
    loss = F.cross_entropy(
        expected(torch.cat([batch.input.double(), images])), torch.cat([batch.target, labels]), reduction="sum"
    )
    (loss / (len(batch.target) + len(images))).backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= 0.1 * p.grad
    assert_same(model, expected, rtol=1e-9, atol=1e-12)


def test_repairing_takes_a_share_of_an_epoch(trained, make_data, fresh):
    data = make_data(forget=WholeClasses(CLASSES))
    n = len(data.part("retain")[1])
    for share in (0.2, 1.0):
        [result] = run_chain(fresh, copy.deepcopy(trained), data, [Repair(share, batch_size=16)])
        batches = math.ceil(n / 16)
        assert result.work / 3 == pytest.approx(math.ceil(share * batches) * n / batches, rel=0.05)


def test_the_chain_forgets_a_class_and_keeps_the_others(trained, make_data, fresh):
    data = make_data(forget=WholeClasses([3]))
    chain = [ErrorMaximisingNoise(64), Impair(1.0, 16, 32, sgd(0.05)), Repair(1.0, 32, sgd(0.05))]
    found = {}
    for part in ("forget", "retain"):
        found[part] = [(b.input, b.target) for b in data.evaluation_loader(part)]

    def accuracy(part):
        return float(torch.cat([trained(x).argmax(1) == y for x, y in found[part]]).float().mean())

    before = accuracy("forget")
    run_chain(fresh, trained, data, chain)
    assert accuracy("forget") < before - 0.15
    assert accuracy("retain") > 0.8


def test_other_splits_are_refused_before_anything_runs(trained, make_data, fresh):
    before = copy.deepcopy(trained.state_dict())
    with pytest.raises(ChainError, match="whole classes, and what is to be forgotten is not"):
        run_chain(fresh, trained, make_data(), [FineTune(), ErrorMaximisingNoise(), Impair()])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(
    "build",
    [
        lambda: ErrorMaximisingNoise(count=0),
        lambda: Impair(noise_per_class=0),
        lambda: Repair(0.0),
        lambda: Repair(1.5),
        lambda: Repair(max_epochs=3),
    ],
)
def test_arguments_are_checked(build):
    with pytest.raises(ChainError, match="needed"):
        build()
