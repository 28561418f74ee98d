"""Fine-tuning stages of the late places of the NeurIPS 2023 challenge, each against a plain loop."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import (
    ClassWeightedFineTune,
    DistilOriginal,
    KeepWeights,
    MatchEntropy,
    RandomTensorFineTune,
    ResetLayers,
)
from lightning_unlearn.stages.class_weighted_fine_tune import class_weights


def plain_fit(model, data, stage, loss, epochs, optimizer, position=0, part="retain", limit=None):
    """The loop without Lightning, in train mode."""
    model.train()
    stepper, done = optimizer(list(model.parameters())), 0
    for epoch in range(epochs):
        for batch in steps(data, stage, epoch, position):
            if done == limit:
                return model
            stepper.zero_grad()
            loss(model(batch[part].input), batch[part]).backward()
            stepper.step()
            done += 1
    return model


def test_class_weights_by_hand():
    counts = torch.tensor([10, 40, 0, 50])
    weights = class_weights(counts, 1.0)
    assert (weights * counts)[[0, 1, 3]].tolist() == pytest.approx([100 / 3] * 3)
    assert weights[2] == 0
    assert torch.equal(class_weights(counts, 0.0)[[0, 1, 3]], torch.ones(3))
    tenth = class_weights(counts, 0.1)
    assert float(tenth[0] / tenth[3]) == pytest.approx(5**0.1)
    assert float((tenth * counts).sum()) == pytest.approx(100)


def test_class_weighted_fine_tuning_against_a_plain_loop(trained_resnet, make_data, fresh):
    data, model, optimizer = make_data(), copy.deepcopy(trained_resnet), sgd(0.05, momentum=0.9)
    stage = ClassWeightedFineTune(power=1.0, max_epochs=2, optimizer=optimizer)
    run_chain(fresh, model, data, [stage])
    samples, retain = data.part("retain")
    counts = samples.targets[retain].bincount(minlength=10)
    assert counts.min() < counts.max()
    w = len(retain) / 10 / counts

    def loss(logits, batch):
        return (w[batch.target] * F.cross_entropy(logits, batch.target, reduction="none")).mean()

    assert_same(model, plain_fit(trained_resnet, data, stage, loss, 2, optimizer))
    with pytest.raises(ChainError, match="power is -1"):
        ClassWeightedFineTune(power=-1)


def test_entropy_matching_against_a_plain_loop(trained_resnet, make_data, fresh):
    data, model, optimizer = make_data(), copy.deepcopy(trained_resnet), sgd(0.05, momentum=0.9)
    with torch.no_grad():
        trained_resnet.network.linear.weight.mul_(0.5)
    changed = copy.deepcopy(trained_resnet)
    teacher = copy.deepcopy(model).eval()
    stage = MatchEntropy(epochs=1.3, weight=2.0, power=0.1, optimizer=optimizer)

    class Halve(KeepWeights):
        def on_fit_end(self):
            self.classifier.load_state_dict(changed.state_dict())

    [_, result] = run_chain(fresh, model, data, [Halve(), stage])
    samples, retain = data.part("retain")
    w = class_weights(samples.targets[retain].bincount(minlength=10), 0.1)
    batches = len(list(steps(data, stage, 0, 1)))
    limit = math.ceil(1.3 * batches)
    assert batches < limit < 2 * batches

    def entropy(logits):
        p = logits.softmax(1)
        return -(p * p.log()).sum(1)

    def loss(logits, batch):
        with torch.no_grad():
            wanted = entropy(teacher(batch.input))
        hard = (w[batch.target] * F.cross_entropy(logits, batch.target, reduction="none")).mean()
        return hard + 2 * (entropy(logits) - wanted).square().mean()

    assert_same(model, plain_fit(changed, data, stage, loss, 2, optimizer, position=1, limit=limit), rtol=1e-3, atol=1e-5)
    assert result.work < 3 * 2 * len(retain) + len(retain)
    with pytest.raises(ChainError, match="epochs is 0"):
        MatchEntropy(epochs=0)


def test_entropy_matching_has_a_gradient_under_the_scale_of_half_precision(trained_resnet, make_data, fresh):
    """65,536, which is more than the largest half."""
    found = []

    class Scaled(MatchEntropy):
        def objective(self, batch):
            with torch.autocast("cpu", torch.float16):
                loss = super().objective(batch)
            (65536 * loss).backward()
            found.extend(bool(p.grad.isfinite().all()) for p in self.classifier.parameters())
            self.classifier.zero_grad()
            return loss.detach().requires_grad_()

    run_chain(fresh, trained_resnet, make_data(), [Scaled(epochs=0.2, power=0.0)])
    assert found
    assert all(found)


@pytest.mark.parametrize("part", ["unseen", "retain"])
def test_distillation_at_several_temperatures_against_a_plain_loop(part, trained_resnet, make_data, fresh):
    data, model, optimizer = make_data(unseen=50), copy.deepcopy(trained_resnet), sgd(0.02, momentum=0.9)
    labels = part == "retain"
    stage = DistilOriginal(0.5, [1.0, 5.0], labels, part, max_epochs=2, batch_size=16, optimizer=optimizer)
    reset = ResetLayers(last_blocks=1)
    teacher = copy.deepcopy(model).eval()
    start = copy.deepcopy(model)
    run_chain(fresh, start, data, [KeepWeights(), reset])
    run_chain(fresh, model, data, [KeepWeights(), reset, stage])
    seen = set()

    def loss(logits, batch):
        seen.update(batch.index.tolist())
        with torch.no_grad():
            wanted = teacher(batch.input)
        value = F.cross_entropy(logits, batch.target) if labels else 0
        for t in (1.0, 5.0):
            p = (wanted / t).softmax(1)
            value = value + 0.5 * t * t * (p * (p.log() - (logits / t).log_softmax(1))).sum(1).mean()
        return value

    expected = plain_fit(start, data, stage, loss, 2, optimizer, position=2, part=part)
    assert_same(model, expected, rtol=1e-3, atol=1e-5)
    assert seen == set(data.part(part)[1].tolist())


def test_unseen_samples_of_another_set_can_be_distilled_on(trained_resnet, make_data, digits, fresh):
    """Their indices speak of another set than those of the training samples, and may be larger."""
    from lightning_unlearn.data.vision import VisionData

    few = type(digits.train)(digits.train.images[:60], digits.train.targets[:60], digits.train.keys[:60])
    dataset = VisionData("few", few, digits.test, digits.classes, digits.mean, digits.std)
    data = make_data(dataset, unseen=digits)
    stage = DistilOriginal(part="unseen", with_labels=False, optimizer=sgd(0.01))
    before = copy.deepcopy(trained_resnet.state_dict())
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    assert result.work == 4 * len(digits.train)  # the teacher's logits once, and training
    assert any(not torch.equal(value, before[name]) for name, value in trained_resnet.state_dict().items())
    with pytest.raises(ChainError, match="no unseen sample is of a class that is retained"):
        run_chain(fresh, trained_resnet, make_data(unseen=0), [DistilOriginal(part="unseen")])


class RecordedTensors(RandomTensorFineTune):
    """Keeps the weights at the beginning of every epoch, before noise, and at its end."""

    def on_train_epoch_end(self):
        state = {name: p.detach().clone() for name, p in self.classifier.named_parameters()}
        self.ends = [*getattr(self, "ends", []), state]


def test_middle_epochs_move_few_tensors_and_batch_norm(trained_resnet, make_data, fresh):
    start = {name: p.detach().clone() for name, p in trained_resnet.named_parameters()}
    settings = {"tensors": 3, "noisy": 2, "std": 0.3, "first_epochs": 1, "last_epochs": 2, "max_epochs": 6}
    # Momentum and weight decay would move a tensor that only has no gradient.
    stage = RecordedTensors(**settings, optimizer=sgd(0.01, momentum=0.9, weight_decay=0.1))
    run_chain(fresh, trained_resnet, make_data(), [stage])
    states = [start, *stage.ends]
    norm = {name for name in start if ".bn" in name or "shortcut.1" in name}
    drawn = []
    for epoch in range(6):
        moved = {name for name in start if not torch.equal(states[epoch][name], states[epoch + 1][name])}
        if epoch in (0, 4, 5):
            assert moved == set(start)
            continue
        assert norm <= moved
        assert len(moved - norm) == 3
        drawn.append(frozenset(moved - norm))
        far = [n for n in moved - norm if float((states[epoch + 1][n] - states[epoch][n]).std()) > 0.15]
        assert len(far) == 2  # those that noise came to
    assert len(set(drawn)) > 1


def test_the_settings_of_random_tensors_are_checked():
    with pytest.raises(ChainError, match="noisy 3"):
        RandomTensorFineTune(tensors=2, noisy=3)
