import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.callbacks.teacher import KeepOriginal, Teacher
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.stages import UnlearningStage


class Distil(UnlearningStage):
    """Stays near the original on the retained samples, and notes what the teacher says."""

    view = "retain"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.said = []

    def bind(self, classifier, artifacts):
        self.teacher = Teacher(classifier, artifacts, "retain")
        super().bind(classifier, artifacts)

    def configure_callbacks(self):
        return [self.teacher]

    def objective(self, batch):
        logits = self.teacher.logits(batch)
        self.said.append((batch.input.detach().clone(), logits.clone()))
        assert len(list(self.parameters())) == len(list(self.classifier.parameters()))
        assert not logits.requires_grad
        return -F.kl_div(self.classifier(batch.input).log_softmax(1), logits.softmax(1), reduction="batchmean")


class Leave(UnlearningStage):
    view = "none"
    provides = ("original",)

    def __init__(self):
        super().__init__(max_epochs=0)

    def configure_callbacks(self):
        return [KeepOriginal()]


class Spoil(UnlearningStage):
    view = "none"

    def __init__(self):
        super().__init__(max_epochs=0)

    def on_fit_start(self):
        for parameter in self.classifier.parameters():
            parameter.data.mul_(0.5)


def differ(said, model):
    with torch.no_grad():
        return max(float((logits - model(x)).abs().max()) for x, logits in said)


@pytest.mark.parametrize("augmentation", [None, Augmentation(1)])
def test_the_teacher_says_what_the_original_says_of_the_same_images(augmentation, trained_resnet, make_data, fresh):
    original = copy.deepcopy(trained_resnet)
    data, stage = make_data(augmentation=augmentation), Distil(max_epochs=2, optimizer=sgd(0.05))
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    assert differ(stage.said, original) < 1e-4
    assert differ(stage.said, trained_resnet) > 0.01
    # Two epochs of training cost 3 each; the teacher's passes cost one, or one an epoch where images change.
    n = len(data.part("retain")[1])
    assert result.work == pytest.approx(n * (2 * 3 + (1 if augmentation is None else 2)))


@pytest.mark.parametrize("left", [False, True])
def test_the_original_is_that_of_the_artifact_or_of_the_beginning_of_the_stage(left, trained, make_data, fresh):
    original = copy.deepcopy(trained)
    half = copy.deepcopy(trained)
    for parameter in half.parameters():
        parameter.data.mul_(0.5)
    stage = Distil(optimizer=sgd(0.001))
    run_chain(fresh, trained, make_data(), [*([Leave()] if left else []), Spoil(), stage])
    assert differ(stage.said, original if left else half) < 1e-4
    assert differ(stage.said, half if left else original) > 0.1


def test_the_copy_is_frozen_and_apart(trained):
    teacher = Teacher(trained, Artifacts())
    trained.network.fc.weight.data.zero_()
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert not any(module.training for module in teacher.network.modules())
    assert float(teacher.network.network.fc.weight.abs().sum()) > 0


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)])
def test_logits_are_at_least_float32(precision, dtype, trained, make_data, make_trainer):
    stage = Distil(max_steps=1)
    run_chain(make_trainer(precision=precision).fresh, trained, make_data(), [stage])
    assert {logits.dtype for _, logits in stage.said} == {dtype}
