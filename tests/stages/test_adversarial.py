import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import AdversarialExamples, AdversarialFineTune


def pixels(data, index):
    return torch.stack([data.samples.images[int(i)] for i in index]).float() / 255


def normalised(data, images):
    return (images - torch.tensor(data.dataset.mean).view(1, -1, 1, 1)) / torch.tensor(data.dataset.std).view(1, -1, 1, 1)


@pytest.mark.parametrize("resident", [True, False])
def test_examples_are_near_in_pixels_and_get_the_wrong_label(resident, trained, make_data, fresh):
    data, stage = make_data(resident=resident, augmentation=Augmentation(2)), AdversarialExamples()
    before = copy.deepcopy(trained)
    [result] = run_chain(fresh, trained, data, [stage])
    left, (samples, forget) = stage.artifacts["adversarial"], data.part("forget")
    assert torch.equal(left["index"], forget)
    assert left["found"].all()
    assert (left["labels"] != samples.targets[forget]).all()
    assert torch.equal(trained(normalised(data, left["images"])).argmax(1), left["labels"])
    away = (left["images"] - pixels(data, forget)).flatten(1).norm(dim=1)
    assert (away <= left["epsilon"] * 1.0001).all()
    # The last doubling was needed: nothing within half of the radius, or it was the first one.
    assert ((away > left["epsilon"] / 2 * 0.999) | (left["epsilon"] == left["epsilon"].min())).all()
    assert_same(trained, before, rtol=0, atol=0)
    assert result.summary["adversarial"]["found"] == 1
    # Each of 50 steps costs a forward pass and one back to the image; one more forward pass looks at the answer.
    radii = (left["epsilon"] / 0.04).log2().round() + 1
    assert result.work == pytest.approx(float((radii * (50 * 2 + 1)).sum()))


def test_no_example_has_the_label_of_a_class_that_is_forgotten(trained, make_data, fresh):
    gone = [3, 5, 8, 9]
    stage = AdversarialExamples()
    run_chain(fresh, trained, make_data(forget=WholeClasses(gone)), [stage])
    assert not set(stage.artifacts["adversarial"]["labels"].tolist()) & set(gone)
    many = AdversarialExamples()
    run_chain(fresh, trained, make_data(forget=WholeClasses([0, 1, 2, 3, 4, 5, 6, 7, 8])), [many])
    assert many.artifacts["adversarial"]["found"].any()


@pytest.mark.parametrize("with_retained", [True, False])
def test_a_step_is_one_over_samples_and_examples_together(with_retained, trained, make_data, fresh):
    """One batch of everything: the plain gradient step on the mean over the union."""
    data = make_data(batch_size=1000)
    chain = [AdversarialExamples(), AdversarialFineTune(with_retained=with_retained, optimizer=sgd(0.1))]
    plain = copy.deepcopy(trained)
    run_chain(fresh, trained, data, chain)
    left = chain[0].artifacts["adversarial"]
    samples, index = data.part("train" if with_retained else "forget")
    images = torch.cat([pixels(data, index), left["images"]])
    loss = F.cross_entropy(plain(normalised(data, images)), torch.cat([samples.targets[index], left["labels"]]))
    loss.backward()
    sgd(0.1)(list(plain.parameters())).step()
    assert_same(trained, plain, rtol=1e-4, atol=1e-6)


class Watched(AdversarialFineTune):
    """Keeps what enters the network while it trains."""

    def objective(self, batch):
        self.seen = getattr(self, "seen", [])
        handle = self.classifier.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0].detach().clone()))
        loss = super().objective(batch)
        handle.remove()
        return loss


def held(images, among):
    """For each image how often it is among others."""
    return ((images.flatten(1)[:, None] - among.flatten(1)).abs().amax(2) < 1e-4).sum(1)


@pytest.mark.parametrize("with_forgotten", [True, False])
def test_an_epoch_sees_each_example_once_and_forgotten_samples_only_where_asked(with_forgotten, trained, make_data, fresh):
    data = make_data()
    chain = [AdversarialExamples(), Watched(with_forgotten, optimizer=sgd(0.0001))]
    run_chain(fresh, trained, data, chain)
    seen, left = torch.cat(chain[1].seen), chain[0].artifacts["adversarial"]
    forget, retain = (normalised(data, pixels(data, data.part(name)[1])) for name in ("forget", "retain"))
    assert (held(normalised(data, left["images"]), seen) == 1).all()
    assert (held(forget, seen) == (1 if with_forgotten else 0)).all()
    assert len(seen) == len(retain) + len(forget) * (2 if with_forgotten else 1)
    assert ("true labels" in chain[1].note) == with_forgotten


def test_an_example_is_augmented_as_its_sample(trained, make_data, fresh):
    data = make_data(augmentation=Augmentation(3, flip=False))
    chain = [AdversarialExamples(), Watched(optimizer=sgd(0.0001), with_retained=False)]
    run_chain(fresh, trained, data, chain)
    for batch in chain[1].seen:
        samples, examples = batch.chunk(2)
        # Up to the small attack and to what was shifted in; other draws of shifts would be far away.
        own = (samples - examples).flatten(1).norm(dim=1)
        others = torch.cdist(samples.flatten(1), examples.flatten(1)) + 1e3 * torch.eye(len(samples))
        assert (own < others.min(1).values).float().mean() > 0.9
    unmoved = normalised(data, chain[0].artifacts["adversarial"]["images"])
    assert (held(unmoved, torch.cat(chain[1].seen)) == 0).float().mean() > 0.8


def test_arguments_are_checked():
    with pytest.raises(ChainError, match="steps 0"):
        AdversarialExamples(steps=0)
