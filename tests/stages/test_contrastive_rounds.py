"""Fanchuan: uniform answers, then rounds of contrast and repair."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import ContrastiveRounds, KLToUniform
from lightning_unlearn.stages.contrastive_rounds import contrast


def test_contrast_is_over_all_pairs():
    source = torch.Generator().manual_seed(0)
    forget, retain = (torch.randn(n, 5, generator=source, dtype=torch.float64) for n in (3, 4))
    found = contrast(forget, retain, 1.15)
    for i in range(3):
        products = [float(forget[i] @ retain[j]) / 1.15 for j in range(4)]
        total = math.log(sum(math.exp(p) for p in products))
        assert float(found[i]) == pytest.approx(sum(total - p for p in products) / 4)


def test_fanchuan_over_two_rounds_with_momentum(trained_resnet, make_data, fresh):
    """The published loop in plain code: momentum and cosine go on over both rounds, the first stage has its own."""
    data, model = make_data(), copy.deepcopy(trained_resnet)
    uniform = KLToUniform(batch_size=8, optimizer=sgd(0.005, momentum=0.9))
    rounds = ContrastiveRounds(
        rounds=2, batch_size=96, forget_batch_size=8,
        optimizer=sgd(0.0015, momentum=0.9, weight_decay=0.01),
        forget_optimizer=sgd(0.003, momentum=0.9), forget_schedule="cosine", forget_floor=1e-4,
    )  # fmt: skip
    run_chain(fresh, model, data, [uniform, rounds])

    plain = trained_resnet.train()
    weights = list(plain.parameters())
    optimizer = sgd(0.005, momentum=0.9)(weights)
    for batch in steps(data, uniform, 0):
        optimizer.zero_grad()
        log_p = plain(batch["forget"].input).log_softmax(1)
        (-math.log(10) - log_p.mean(1)).mean().backward()
        optimizer.step()
    repair, push = sgd(0.0015, momentum=0.9, weight_decay=0.01)(weights), sgd(0.003, momentum=0.9)(weights)
    pushes = 0
    plan = [list(steps(data, rounds, epoch, 1)) for epoch in range(2)]
    total = sum("forget" in batch for epoch in plan for batch in epoch)
    assert total == 2 * 3  # three retained batches end the pass, though there are four forgotten ones
    for batch in plan[0] + plan[1]:
        if "forget" in batch:
            push.param_groups[0]["lr"] = 1e-4 + (0.003 - 1e-4) * (1 + math.cos(math.pi * pushes / total)) / 2
            pushes += 1
            push.zero_grad()
            logits = plain(batch["forget"].input)
            others = plain(batch["retain"].input).detach()
            (-F.log_softmax(logits @ others.T / 1.15, dim=-1)).mean().backward()
            push.step()
        else:
            repair.zero_grad()
            F.cross_entropy(plain(batch["retain"].input), batch["retain"].target).backward()
            repair.step()
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_shipped_settings_are_the_published_ones():
    uniform, rounds = load_method("fanchuan")()
    assert (uniform.max_epochs, rounds.max_epochs, rounds.forget_rounds) == (1, 8, 8)
    assert (rounds.temperature, rounds.forget_schedule, rounds.forget_floor) == (1.15, "cosine", 1e-6)
    assert rounds.batch_size == 256
    weights = [torch.nn.Parameter(torch.zeros(1))]
    made = [factory(weights).param_groups[0] for factory in (uniform.optimizer, rounds.forget_optimizer, rounds.optimizer)]
    assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in made] == [
        (5e-3, 0, 0.9),
        (3e-4, 0, 0.9),
        (pytest.approx(1e-3 * 256 / 64), 1e-2, 0.9),
    ]


def test_the_temperature_is_checked():
    with pytest.raises(ChainError, match="temperature is 0; needed: above 0"):
        ContrastiveRounds(temperature=0)
