import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import NegGradPlus


@pytest.mark.parametrize("ceiling", [None, 0.3])
def test_neg_grad_plus_against_a_plain_loop(ceiling, trained_resnet, make_data, fresh):
    data, model = make_data(), copy.deepcopy(trained_resnet)
    stage = NegGradPlus(
        retain_weight=0.8, ceiling=ceiling, max_retain_drop=None, max_epochs=2, forget_batch_size=8,
        optimizer=sgd(0.02, momentum=0.9),
    )  # fmt: skip
    run_chain(fresh, model, data, [stage])
    plain = trained_resnet.train()
    optimizer, above = sgd(0.02, momentum=0.9)(list(plain.parameters())), 0
    for epoch in range(2):
        for batch in steps(data, stage, epoch):
            forget, retain = batch["forget"], batch["retain"]
            logits = plain(torch.cat([forget.input, retain.input]))
            losses = F.cross_entropy(logits[: len(forget.target)], forget.target, reduction="none")
            limit = math.log(10) if ceiling is None else ceiling
            above += int((losses > limit).sum())
            ascent = torch.stack([loss if loss < limit else loss.detach() for loss in losses]).mean()
            loss = 0.8 * F.cross_entropy(logits[len(forget.target) :], retain.target) - 0.2 * ascent
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert above or ceiling is None
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_weight_is_checked():
    with pytest.raises(ChainError, match=r"retain_weight is 1\.5; needed: 0 to 1"):
        NegGradPlus(retain_weight=1.5)
