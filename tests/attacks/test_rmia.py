import math

import pytest
import torch

from lightning_unlearn.attacks.rmia import rmia
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.divergences import margin


def draws(n=30, r=2, z=40, u=None, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def log_p(*shape):
        return -torch.rand(*shape, generator=generator, dtype=torch.float64).mul(3).exp()

    lead = () if u is None else (u,)
    return log_p(*lead, n), log_p(r, n), log_p(*lead, z), log_p(r, z)


@pytest.mark.parametrize("r", [1, 2, 4])
@pytest.mark.parametrize(("gamma", "a"), [(1.0, 0.3), (2.0, 1.0), (0.5, 0.0)])
def test_against_counting_every_pair(r, gamma, a):
    target, refs, z_target, z_refs = draws(r=r)
    expected = []
    for i in range(len(target)):
        out = refs[:, i].exp().mean().item()
        ratio_x = math.exp(target[i]) / (((1 + a) * out + 1 - a) / 2)
        wins = 0
        for j in range(len(z_target)):
            ratio_z = math.exp(z_target[j]) / z_refs[:, j].exp().mean().item()
            wins += ratio_x / ratio_z >= gamma
        expected.append(wins / len(z_target))
    assert rmia(target, refs, z_target, z_refs, gamma, a).tolist() == pytest.approx(expected, abs=1e-12)
    assert 0 < sum(expected) < len(expected)


def test_several_models_are_attacked_as_one_by_one():
    target, refs, z_target, z_refs = draws(u=5)
    together = rmia(target, refs, z_target, z_refs)
    assert together.shape == (5, 30)
    for one, x, z in zip(together, target, z_target, strict=True):
        assert one.equal(rmia(x, refs, z, z_refs))


def test_equal_ratios_count_as_wins():
    # Model and references say the same of everything: every ratio is 1.
    half = torch.full((4,), 0.5).log()
    assert rmia(half, half.expand(2, 4), half, half.expand(2, 4), a=1.0).tolist() == [1] * 4


def test_a_model_that_is_surer_than_others_gives_itself_away():
    generator = torch.Generator().manual_seed(1)
    hard = torch.randn(200, generator=generator, dtype=torch.float64)

    def log_p(shift):
        phi = hard + 0.3 * torch.randn(200, generator=generator, dtype=torch.float64) + shift
        return torch.nn.functional.logsigmoid(phi)

    refs, z_refs = torch.stack([log_p(0.0), log_p(0.0)]), torch.stack([log_p(0.0), log_p(0.0)])
    member, other = (rmia(log_p(shift), refs, log_p(0.0), z_refs, a=1.0).mean() for shift in (2.0, 0.0))
    assert member > 0.9
    assert other == pytest.approx(0.5, abs=0.1)


def test_tiny_probabilities_do_not_underflow():
    logits = torch.tensor([[0.0, 2000.0], [0.0, 1990.0]])
    y = torch.tensor([0, 0])
    assert bool(margin(logits, y).isfinite().all())
    log_p = logits.double().log_softmax(1)[:, 0]
    scores = rmia(log_p, log_p.flip(0).unsqueeze(0), log_p, log_p.unsqueeze(0), a=1.0)
    # p(x | u) / p(x) is e^-10 and e^10, p(z | u) / p(z) is 1.
    assert scores.tolist() == [0, 1]


def test_bad_input_is_refused():
    target, refs, z_target, z_refs = draws()
    for bad in (
        (target, refs[:, :5], z_target, z_refs),
        (target, refs, z_target, z_refs[:1]),
        (target, refs[:0], z_target, z_refs[:0]),
        (target, refs, z_target[:0], z_refs[:, :0]),
        (target.unsqueeze(0), refs, z_target, z_refs),
    ):
        with pytest.raises(DataError, match="shapes"):
            rmia(*bad)
    with pytest.raises(DataError, match="above 0"):
        rmia(target.exp(), refs, z_target, z_refs)
    with pytest.raises(DataError, match="gamma above 0"):
        rmia(target, refs, z_target, z_refs, gamma=0)
    with pytest.raises(DataError, match="a in 0 to 1"):
        rmia(target, refs, z_target, z_refs, a=1.5)
