import copy

import pytest
import torch
from helpers import untrained

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import ClassMeanTargets


def test_targets_are_means_over_unseen_samples_of_the_class(trained_resnet, make_data, fresh):
    data, stage, before = make_data(unseen=80), ClassMeanTargets(), copy.deepcopy(trained_resnet)
    run_chain(fresh, trained_resnet, data, [stage])
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in trained_resnet.state_dict().items())
    (samples, forget), (others, unseen) = data.part("forget"), data.part("unseen")
    left = stage.artifacts["targets"]
    assert torch.equal(left["index"], forget)
    with torch.no_grad():
        for row, i in zip(left["probabilities"], forget.tolist(), strict=True):
            same = [j for j in unseen.tolist() if others.targets[j] == samples.targets[i]]
            loader = data.evaluation_loader("unseen", torch.tensor(same))
            expected = torch.cat([before(batch.input).softmax(1) for batch in loader]).mean(0)
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)


def test_a_class_without_unseen_samples_gets_the_mean_over_all(trained_resnet, make_data, fresh, caplog):
    data, stage = make_data(forget=RandomFraction(0.5), unseen=3), ClassMeanTargets()
    with torch.no_grad():
        expected = torch.cat([trained_resnet(batch.input).softmax(1) for batch in data.evaluation_loader("unseen")]).mean(0)
    run_chain(fresh, trained_resnet, data, [stage])
    (samples, forget), (others, unseen) = data.part("forget"), data.part("unseen")
    missing = ~torch.isin(samples.targets[forget], others.targets[unseen])
    assert missing.any()
    torch.testing.assert_close(stage.artifacts["targets"]["probabilities"][missing], expected.expand(int(missing.sum()), -1))
    assert "have no unseen samples" in caplog.text


def test_unseen_samples_are_needed(trained_resnet, make_data, fresh):
    with pytest.raises(ChainError, match="there are no unseen samples"):
        run_chain(fresh, trained_resnet, make_data(unseen=0), [ClassMeanTargets()])


def test_regun_moves_forgotten_answers_to_their_means(trained_resnet, make_data, fresh):
    data, chain = make_data(unseen=80), load_method("regun")()
    with torch.no_grad():
        answers = [torch.cat([trained_resnet(b.input).softmax(1) for b in data.evaluation_loader("forget")])]
        run_chain(fresh, trained_resnet, data, chain)
        answers += [torch.cat([trained_resnet(b.input).softmax(1) for b in data.evaluation_loader("forget")])]
    before, after = ((a - chain[0].artifacts["targets"]["probabilities"]).abs().sum(1).mean() for a in answers)
    assert after < 0.9 * before


def test_where_the_checkpoint_left_none_out_the_remedy_is_one_that_helps(make_data, tmp_path):
    make_data(unseen=0).saved_split().save(tmp_path / "split.json")
    data = make_data(unseen=0.1)
    data.use_split_of(tmp_path / "model.ckpt")
    with pytest.raises(ChainError, match="has settled which samples are unseen: give "):
        ClassMeanTargets().check(untrained(), data)
    data = make_data(unseen="half_of_test")
    data.use_split_of(tmp_path / "model.ckpt")
    ClassMeanTargets().check(untrained(), data)
