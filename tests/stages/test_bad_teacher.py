import copy

import pytest
import torch
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import BadTeacher


def kl(teacher, student):
    p = teacher.softmax(1)
    return (p * (p.log() - student.log_softmax(1))).sum(1)


@pytest.mark.parametrize(("share", "count"), [(0.5, 4), (1.0, 8)])
def test_bad_teacher_against_a_plain_loop(share, count, trained_resnet, make_data, fresh):
    data, model = make_data(), copy.deepcopy(trained_resnet)
    stage = BadTeacher(retain_share=share, forget_batch_size=8, optimizer=sgd(0.02, momentum=0.9))
    run_chain(fresh, model, data, [stage])
    original, ignorant = copy.deepcopy(trained_resnet).eval(), stage.bad.network.cpu()
    # It knows nothing, and is not the original.
    x = next(iter(steps(data, stage, 0)))["forget"]
    assert not torch.equal(ignorant(x.input).argmax(1), original(x.input).argmax(1))
    plain = trained_resnet.train()
    optimizer = sgd(0.02, momentum=0.9)(list(plain.parameters()))
    for batch in list(steps(data, stage, 0))[:count]:
        forget, retain = batch["forget"].input, batch["retain"].input
        with torch.no_grad():
            teachers = torch.cat([ignorant(forget), original(retain)])
        optimizer.zero_grad()
        kl(teachers, plain(torch.cat([forget, retain]))).mean().backward()
        optimizer.step()
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_share_is_checked():
    with pytest.raises(ChainError, match="retain_share is 0; needed: above 0 and at most 1"):
        BadTeacher(retain_share=0)
