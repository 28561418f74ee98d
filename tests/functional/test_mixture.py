"""Mixtures of estimates: what is remembered counts against an estimator, what it knows of unseen samples for it."""

import math

import pytest
import torch

from lightning_unlearn.functional.mixture import choose_mixture, faithfulness, mixed


def test_a_mixture_is_a_mean_with_a_little_of_everything():
    a, b = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    found = mixed([a, b], [3.0, 1.0])
    expected = torch.tensor([[0.735, 0.245, 0.0, 0.0]], dtype=torch.float64) + 0.005
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float64


def test_faithfulness_by_hand():
    unseen = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # deviation sqrt 2
    members = unseen + 2 * math.sqrt(2)
    assert faithfulness(unseen, unseen, 3 * unseen + 1) == pytest.approx(1)
    assert faithfulness(members, unseen, unseen) == pytest.approx(1 / math.sqrt(1 + 9))
    assert faithfulness(members, unseen, -unseen) == pytest.approx(-1 / math.sqrt(1 + 9))
    assert faithfulness(unseen, torch.zeros(2), unseen) == 0


def _odds(p, labels, classes=3):
    """Probabilities whose label has probability p."""
    rest = ((1 - p) / (classes - 1))[:, None].repeat(1, classes)
    return rest.scatter(1, labels[:, None], p[:, None])


def test_an_estimator_that_remembers_is_left_out_and_two_that_complement_each_other_are_mixed():
    source = torch.Generator().manual_seed(0)
    n = 4000
    labels, member_labels = torch.randint(3, (n,), generator=source), torch.randint(3, (n,), generator=source)
    truth, of_members = torch.randn(n, generator=source), torch.randn(n, generator=source)
    noises = [torch.randn(n, generator=source) for _ in range(4)]

    def estimator(unseen_noise, member_noise, size, memory=0.0):
        found = [torch.sigmoid(t + size * e + m) for t, e, m in ((of_members, member_noise, memory), (truth, unseen_noise, 0))]
        return _odds(found[0], member_labels), _odds(found[1], labels)

    first, second = estimator(noises[0], noises[1], 1.0), estimator(noises[2], noises[3], 1.0)
    remembering = estimator(noises[2], noises[3], 0.2, memory=4.0)
    members, unseen = zip(first, second, remembering, strict=True)
    weights = choose_mixture(members, member_labels, unseen, labels, truth)
    assert weights[2] == 0
    assert weights[0] == pytest.approx(0.5, abs=0.11)
    assert sum(weights) == pytest.approx(1)
    # Without its memory it would have been the best.
    honest = estimator(noises[2], noises[3], 0.2)
    members, unseen = zip(first, second, honest, strict=True)
    assert choose_mixture(members, member_labels, unseen, labels, truth)[2] > 0.7
