import copy

import pytest
import torch
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import RandomCount
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import BadTeacher


def kl(teacher, student):
    p = teacher.softmax(1)
    return (p * (p.log() - student.log_softmax(1))).sum(1)


@pytest.mark.parametrize(("share", "count"), [(0.5, 6), (1.0, 11)])
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
    made = list(steps(data, stage, 0))
    # At most 24 retained samples beside 8 forgotten ones in a batch of 32.
    assert {len(batch["forget"].target) for batch in made} == {8}
    assert [len(batch["retain"].target) for batch in made] == [23] + [22] * 10
    for batch in made[:count]:
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


def test_every_rank_gets_a_forgotten_sample_of_a_small_request(make_data, monkeypatch):
    monkeypatch.setattr(UnlearningDataModule, "ranks", (0, 4))
    for count, mine in ((5, 4), (2, 2)):
        assert BadTeacher(batch_size=32).sizes(make_data(forget=RandomCount(count)))[1] == mine


@pytest.mark.parametrize(("share", "batch_size"), [(0.3, 32), (1.0, 64), (0.3, 256)])
def test_every_forgotten_sample_is_passed_over_about_once(share, batch_size, make_data):
    data = make_data()
    stage = BadTeacher(retain_share=share, batch_size=batch_size)
    retain, forget = stage.sizes(data)
    assert retain + forget == batch_size
    n_f, n_r = (len(data.part(part)[1]) for part in ("forget", "retain"))
    assert forget / batch_size == pytest.approx(n_f / (n_f + share * n_r), abs=0.5 / batch_size)
    data.serve("both", retain, forget)
    assert stage.length(data)[1] * retain == pytest.approx(share * n_r, abs=retain)
