import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import AlternatingStage


class Turns(AlternatingStage):
    """Ascends on the forgotten samples a little, then descends on the retained ones."""

    train_mode = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def objective(self, batch):
        part = "forget" if "forget" in batch else "retain"
        self.seen.append((self.current_epoch, "+".join(sorted(batch)), batch[part].index))
        values = F.cross_entropy(self.classifier(batch[part].input), batch[part].target, reduction="none")
        return self.mean(values, batch[part]) * (-0.1 if part == "forget" else 1)


class Pairs(Turns):
    view = "pairs_then_retain"


def by_hand(model, data, stage, optimizers, schedulers=(), clip=None):
    """The same in a plain loop: momentum and schedules live on."""
    for epoch in range(stage.max_epochs):
        for pieces in data.train_dataloader().plan.steps(epoch):
            part = "forget" if "forget" in pieces else "retain"
            index = pieces[part].index
            x = data.evaluation_loader(part, index).maker
            batch = x.make(next(iter(x.read([[index]])))[0], pieces[part], augment=False)
            loss = F.cross_entropy(model(batch.input), batch.target) * (-0.1 if part == "forget" else 1)
            optimizer = optimizers[part]
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            for scheduler in schedulers:
                if scheduler.optimizer is optimizer:
                    scheduler.step()


def served(data, view):
    """The data as the first stage of a chain gets it."""
    data.serve(view, salt="0/Turns")
    return data


@pytest.mark.parametrize("clip", [None, 0.3])
def test_two_optimisers_with_their_momentum_and_schedules_live_through_all_rounds(clip, trained, make_data, make_trainer):
    data, model = make_data(forget_batch_size=8), copy.deepcopy(trained)
    stage = Turns(
        rounds=3,
        optimizer=sgd(0.02, momentum=0.9, weight_decay=1e-3),
        schedule="cosine",
        forget_optimizer=sgd(0.01, momentum=0.8),
        forget_schedule="cosine",
    )
    run_chain(make_trainer(gradient_clip_val=clip).fresh, model, data, [stage])
    served(data, "forget_then_retain")
    retain = sgd(0.02, momentum=0.9, weight_decay=1e-3)(list(trained.parameters()))
    forget = sgd(0.01, momentum=0.8)(list(trained.parameters()))
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * steps) for optimizer, steps in ((retain, 8), (forget, 4))
    ]
    by_hand(trained, data, stage, {"forget": forget, "retain": retain}, schedulers, clip)
    assert [s.get_last_lr()[0] for s in schedulers] == pytest.approx([0, 0], abs=1e-9)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_one_optimiser_steps_in_both_passes(trained, make_data, fresh):
    data, model = make_data(forget_batch_size=8), copy.deepcopy(trained)
    stage = Turns(rounds=2, optimizer=sgd(0.02, momentum=0.9))
    run_chain(fresh, model, data, [stage])
    one = sgd(0.02, momentum=0.9)(list(trained.parameters()))
    by_hand(trained, served(data, "forget_then_retain"), stage, {"forget": one, "retain": one})
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_later_rounds_may_leave_the_forgotten_samples_out(trained, make_data, fresh):
    data, stage = make_data(), Turns(rounds=3, forget_rounds=2, optimizer=sgd(0.01))
    [result] = run_chain(fresh, trained, data, [stage])
    parts = [{part for epoch, part, _ in stage.seen if epoch == e} for e in range(3)]
    assert parts == [{"forget", "retain"}, {"forget", "retain"}, {"retain"}]
    n_f, n_r = (len(data.part(part)[1]) for part in ("forget", "retain"))
    # What is trained on costs 1 forward and 2 backward passes; what is left out costs nothing.
    assert result.work == pytest.approx(3 * (2 * n_f + 3 * n_r))


def test_pairs_have_a_retained_batch_beside_each_forgotten_one(trained, make_data, fresh):
    data, stage = make_data(forget_batch_size=8), Pairs(rounds=2, optimizer=sgd(0.01))
    run_chain(fresh, trained, data, [stage])
    assert [part for _, part, _ in stage.seen] == 2 * (["forget+retain"] * 4 + ["retain"] * 8)


def test_half_precision_clips_gradients_without_their_scale(trained, make_data, make_trainer):
    """A scaler multiplies gradients by 2**16: clipped with it, or stepped with it, the weights would be others."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    states = []
    for scaled in (False, True):
        model, stage = copy.deepcopy(trained), Turns(rounds=2, optimizer=sgd(0.05))
        trainer = make_trainer(gradient_clip_val=0.3)

        def fresh(trainer=trainer, scaled=scaled, **kwargs):
            made = trainer.fresh(**kwargs)
            if scaled:
                precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**16))
                made.strategy.precision_plugin = made._accelerator_connector.precision_plugin = precision
            return made

        run_chain(fresh, model, make_data(), [stage])
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    moved = (states[0] - torch.cat([p.detach().flatten() for p in trained.parameters()])).norm()
    assert moved > 0
    assert not torch.equal(*states)  # rounding of half precision: the scaler was at work
    assert (states[0] - states[1]).norm() < 0.05 * moved


def test_accumulation_is_refused(trained, make_data, make_trainer):
    with pytest.raises(ChainError, match="accumulate_grad_batches is 2; needed: 1"):
        run_chain(make_trainer(accumulate_grad_batches=2).fresh, trained, make_data(), [Turns()])


@pytest.mark.parametrize("course", [{"forget_schedule": "cosine"}, {"forget_floor": 1e-6}])
def test_a_course_of_no_optimiser_is_refused(course):
    with pytest.raises(ChainError, match="without a forget_optimizer"):
        Turns(**course)


@pytest.mark.parametrize("arguments", [{"rounds": 0}, {"rounds": 2, "forget_rounds": 3}, {"forget_rounds": -1}])
def test_rounds_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: at least one round"):
        Turns(**arguments)
