import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.stages import RandomLabel
from lightning_unlearn.stages.random_label import wrong_labels


def test_labels_are_wrong_and_uniform_over_the_others():
    n, classes = 30_000, 5
    targets, hashes = torch.arange(n) % classes, torch.arange(n) * 7919
    labels = wrong_labels(targets, hashes, classes, 0)
    shift = (labels - targets) % classes
    share = torch.bincount(shift, minlength=classes) / n
    assert share[0] == 0
    assert (share[1:] - 1 / (classes - 1)).abs().max() < 4 * (0.25 * 0.75 / n) ** 0.5
    # A sample keeps its label when others are gone, and gets another one with another seed.
    assert torch.equal(wrong_labels(targets[::3], hashes[::3], classes, 0), labels[::3])
    assert not torch.equal(wrong_labels(targets, hashes, classes, 1), labels)
    two = torch.tensor([0, 1, 1, 0])
    assert torch.equal(wrong_labels(two, two, 2, 0), 1 - two)


def test_a_class_that_is_forgotten_is_taught_to_nobody():
    n, gone = 20_000, torch.tensor([1, 4])
    targets, hashes = torch.arange(n) % 5, torch.arange(n) * 7919
    labels = wrong_labels(targets, hashes, 5, 0, gone=gone)
    assert not (labels == targets).any()
    assert not torch.isin(labels, gone).any()
    for label in range(5):
        left = 3 - (label not in gone)
        share = torch.bincount(labels[targets == label], minlength=5)[[0, 2, 3]] / (n / 5)
        assert ((share - 1 / left).abs() < 0.04).sum() == left
    # Where nothing else is left, the others are taught all the same.
    assert torch.equal(
        wrong_labels(torch.tensor([0, 1]), torch.tensor([5, 6]), 2, 0, gone=torch.tensor([0, 1])), torch.tensor([1, 0])
    )


def test_labels_of_many_classes_take_no_table_of_all_pairs():
    classes = 30_000
    targets = torch.arange(classes)
    labels = wrong_labels(targets, targets * 7919, classes, 0, gone=torch.arange(10))
    assert not (labels == targets).any()
    assert labels.min() >= 10


@pytest.mark.parametrize("redraw", [False, True])
def test_random_labels_against_a_plain_loop(redraw, trained_resnet, make_data, fresh):
    data, model = make_data(forget_batch_size=8), copy.deepcopy(trained_resnet)
    stage = RandomLabel(redraw=redraw, rounds=2, optimizer=sgd(0.02, momentum=0.9))
    run_chain(fresh, model, data, [stage])
    drawn = [wrong_labels(data.samples.targets, data.samples.hashes, 10, 0, draw) for draw in range(2)]
    assert 0.7 < (drawn[0] != drawn[1]).float().mean() < 1
    plain = trained_resnet.train()
    optimizer = sgd(0.02, momentum=0.9)(list(plain.parameters()))
    for epoch in range(2):
        labels = drawn[epoch if redraw else 0]
        for batch in steps(data, stage, epoch):
            (name, part), = batch.items()  # fmt: skip
            optimizer.zero_grad()
            F.cross_entropy(plain(part.input), labels[part.index] if name == "forget" else part.target).backward()
            optimizer.step()
    assert_same(model, plain, rtol=1e-3, atol=1e-5)
