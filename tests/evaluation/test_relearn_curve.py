import copy
import math

import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.data.forget import RandomCount
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.evaluation.relearn_curve import relearn_curve
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.metrics.relearn import relearn_time


def by_hand(model, data, steps):
    """Full batches of the forgotten samples, in eval mode, momentum written out."""
    model = copy.deepcopy(model).eval()
    samples, index = data.part("forget")
    [batch] = list(data.evaluation_loader("forget"))
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    curve = []
    for _ in range(steps + 1):
        logits = model(batch.input)
        curve.append(float((logits.argmax(1) == samples.targets[index]).float().mean()))
        gradients = torch.autograd.grad(F.cross_entropy(logits, batch.target), list(model.parameters()))
        with torch.no_grad():
            for parameter, v, gradient in zip(model.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(gradient)
                parameter.sub_(0.01 * v)
    return curve


def spoiled(model):
    """The model with its head turned round, which knows nothing."""
    with torch.no_grad():
        getattr(model.network, "fc", getattr(model.network, "linear", None)).weight.mul_(-0.1)
    return model


def test_the_curve_is_that_of_steps_on_the_forgotten_samples(trained_resnet, make_data, fresh):
    data, model = make_data(batch_size=64), spoiled(trained_resnet)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curve = relearn_curve(fresh, model, data, 2.0, 8)  # a target that is never reached
    assert curve == pytest.approx(by_hand(model, data, 8), abs=1e-6)
    assert curve[-1] > curve[0]
    assert relearn_time(curve, 2.0) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_ends_where_the_target_is_reached(trained, make_data, fresh):
    data = make_data()
    model = spoiled(trained)
    long = relearn_curve(fresh, model, data, 2.0, 40)
    target = sorted(long)[len(long) // 2]
    short = relearn_curve(fresh, model, data, target, 40)
    time = relearn_time(long, target)
    assert time is not None
    assert short == long[: time + 1]


def test_a_model_that_knows_them_still_takes_no_step(trained, make_data, fresh):
    known = collect_outputs(fresh, trained, make_data(), ["forget"])["forget"].accuracy
    assert relearn_curve(fresh, trained, make_data(), known, 10) == [known]


def test_evaluate_shows_it_only_where_it_is_asked_for(trained, make_data, make_trainer, tmp_path):
    original, unlearned = tmp_path / "original.ckpt", tmp_path / "unlearned.ckpt"
    torch.save(trained.state_dict(), original)
    torch.save(spoiled(copy.deepcopy(trained)).state_dict(), unlearned)

    def rows(**kwargs):
        given = {"checkpoint": str(unlearned), "original": str(original), "relearn_epochs": 0, **kwargs}
        return make_trainer().evaluate(copy.deepcopy(trained), make_data(), **given).rows

    assert not any("relearn/time" in row.metrics for row in rows())
    before, after = rows(relearn_steps=200)
    assert before.metrics["relearn/time"] == 0
    assert 0 < after.metrics["relearn/time"] <= 200
    after = rows(relearn_steps=1)[1]
    assert math.isnan(after.metrics["relearn/time"])
    assert any("within 1 steps" in note and "not back" in note for note in after.notes)


@pytest.mark.parametrize("arguments", [{"relearn_steps": 5}, {"relearn_steps": -1, "original": "x.ckpt"}])
def test_it_needs_an_original_and_steps(arguments, trained, make_data, make_trainer):
    with pytest.raises(ConfigError, match="relearn_steps"):
        make_trainer().evaluate(trained, make_data(), **arguments)


def test_fewer_forgotten_samples_than_ranks_are_refused_before_a_model_is_judged(trained, make_data, make_trainer, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "original.ckpt")
    # Forks once it judges a model, and not before.
    trainer, data = make_trainer(devices=2, strategy="ddp_fork"), make_data(forget=RandomCount(1))
    with pytest.raises(DataError, match="1 samples for 2 ranks; needed: at least one per rank"):
        trainer.evaluate(trained, data, original=str(tmp_path / "original.ckpt"), relearn_steps=5)
    assert data.trainer is None
