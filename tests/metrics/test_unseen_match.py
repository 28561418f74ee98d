import pytest
import torch

from lightning_unlearn.metrics.unseen_match import distance_to_unseen, error_gap, margin_advantage
from lightning_unlearn.outputs import PartOutputs


def part(targets, seed, scale=2.0, decimals=None):
    targets = torch.as_tensor(targets)
    logits = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(seed)) * scale
    logits[range(len(targets)), targets] += 1
    return PartOutputs(logits if decimals is None else logits.round(decimals=decimals), targets, torch.arange(len(targets)))


def weights(forget, unseen):
    """Each unseen sample's weight, by hand: its class's share of the forgotten samples that can be compared."""
    f, u = forget.targets.tolist(), unseen.targets.tolist()
    shared = [c for c in f if c in u]
    return [1 / len(shared) if c in u else 0 for c in f], [shared.count(c) / len(shared) / u.count(c) for c in u]


@pytest.mark.parametrize("decimals", [None, 0])
def test_against_every_threshold(decimals):
    forget = part([0, 0, 0, 1, 1, 3, 3], 1, decimals=decimals)
    unseen = part([0, 1, 1, 1, 2, 2, 0, 1], 2, decimals=decimals)
    mine, theirs = weights(forget, unseen)
    phi = [p.margins.tolist() for p in (forget, unseen)]

    def above(w_, values, t):
        return sum(w for w, value in zip(w_, values, strict=True) if value >= t)

    advantages = [abs(above(mine, phi[0], t) - above(theirs, phi[1], t)) for t in [*phi[0], *phi[1]]]
    assert margin_advantage(forget, unseen) == pytest.approx(max(advantages))
    errors = [
        sum(w for w, wrong in zip(w_, (p.logits.argmax(1) != p.targets).tolist(), strict=True) if wrong)
        for w_, p in ((mine, forget), (theirs, unseen))
    ]
    assert error_gap(forget, unseen) == pytest.approx(abs(errors[0] - errors[1]))
    assert distance_to_unseen(forget, unseen) == margin_advantage(forget, unseen)
    assert distance_to_unseen(forget, unseen, "error") == error_gap(forget, unseen)


def test_the_mix_of_classes_alone_is_no_distance():
    """Classes of different difficulty, in other numbers on both sides: the same samples otherwise."""
    one = part([0, 0, 1, 1], 3)
    logits, targets = one.logits, one.targets
    rows = [0, 1, 2, 3, 2, 3, 2, 3]
    more = PartOutputs(logits[rows], targets[rows], torch.arange(8))
    assert margin_advantage(one, more) == pytest.approx(0, abs=1e-12)
    assert error_gap(one, more) == pytest.approx(0, abs=1e-12)


def test_ends_of_the_scale():
    sure = PartOutputs(torch.tensor([[9.0, 0.0]] * 3), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    lost = PartOutputs(torch.tensor([[0.0, 9.0]] * 5), torch.zeros(5, dtype=torch.int64), torch.arange(5))
    assert margin_advantage(sure, lost) == 1
    assert error_gap(sure, lost) == 1
    other = PartOutputs(lost.logits, torch.ones(5, dtype=torch.int64), lost.index)
    assert margin_advantage(sure, other) is None
    assert error_gap(sure, other) is None
