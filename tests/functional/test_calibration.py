import pytest
import torch

from lightning_unlearn.functional.calibration import log_odds, match_quantiles, neighbour_votes, strike_classes


def distributions(n, k, seed=0):
    source = torch.Generator().manual_seed(seed)
    p = torch.rand(n, k, generator=source, dtype=torch.float64) + 0.01
    return p / p.sum(1, keepdim=True), torch.randint(k, (n,), generator=source)


def test_log_odds_of_the_label():
    p = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.log(torch.tensor([0.25, 1.0, (1e-6) / (1 - 1e-6)], dtype=torch.float64))
    torch.testing.assert_close(log_odds(p, torch.tensor([0, 1, 1])), expected)


def test_quantiles_by_hand():
    """Three samples: the median of the unseen for the middle one, the quantiles 1/6 and 5/6 for the others."""
    unseen = torch.tensor([-2.0, -1.0, 0.0, 1.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    estimates = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25]], dtype=torch.float64)
    targets = torch.tensor([0, 0, 1])  # log-odds of 0.7, 0.1, 0.5
    out = match_quantiles(estimates, targets, unseen)
    # Position (U - 1) q of the sorted values: 6 * (1/6, 1/2, 5/6) = 1, 3, 5.
    expected = torch.sigmoid(torch.tensor([5.0, -1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(out.gather(1, targets[:, None])[:, 0], expected)
    torch.testing.assert_close(out.sum(1), torch.ones(3, dtype=torch.float64))
    # The rest keeps its proportions: 0.2 : 0.1, 0.3 : 0.6, 0.25 : 0.25.
    torch.testing.assert_close(out[0, 1] / out[0, 2], torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(out[1, 1] / out[1, 2], torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(out[2, 0], out[2, 2])


def test_as_many_unseen_samples_are_matched_in_distribution_and_in_order():
    p, targets = distributions(500, 7)
    unseen = log_odds(*distributions(500, 7, seed=1)) + 2
    out = log_odds(match_quantiles(p, targets, unseen), targets)
    assert torch.equal(out.argsort(), log_odds(p, targets).argsort())
    torch.testing.assert_close(out.sort().values, unseen.sort().values, rtol=0.1, atol=0.1)


def test_noise_changes_the_ranks_and_not_the_distribution():
    p, targets = distributions(300, 5)
    unseen = log_odds(*distributions(200, 5, seed=1))
    plain, noisy, again = (
        log_odds(match_quantiles(p, targets, unseen, noise, torch.Generator().manual_seed(0)), targets)
        for noise in (0.0, 1.0, 1.0)
    )
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, plain)
    torch.testing.assert_close(noisy.sort().values, plain.sort().values)


def test_no_unseen_sample_is_refused():
    with pytest.raises(ValueError, match="at least one unseen sample"):
        match_quantiles(*distributions(3, 3), torch.empty(0))


def test_votes_are_those_of_the_nearest_by_angle():
    source = torch.Generator().manual_seed(0)
    features, bank = torch.randn(40, 6, generator=source), torch.randn(90, 6, generator=source)
    labels = torch.randint(4, (90,), generator=source)
    votes = neighbour_votes(features, 3 * bank, labels, 5, 4)  # lengths do not matter
    for i, row in enumerate(features.double()):
        cosine = [float(row @ b / (row.norm() * b.norm())) for b in bank.double()]
        nearest = sorted(range(90), key=lambda j: -cosine[j])[:5]
        assert votes[i].tolist() == pytest.approx([sum(int(labels[j]) == c for j in nearest) / 5 for c in range(4)])


def test_struck_classes_get_nothing_and_the_rest_keeps_its_proportions():
    p, _ = distributions(20, 6)
    before = p.clone()
    out = strike_classes(p, torch.tensor([1, 4]))
    assert (out[:, [1, 4]] == 0).all()
    torch.testing.assert_close(out.sum(1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(out[:, 0] / out[:, 5], before[:, 0] / before[:, 5])
    assert torch.equal(p, before)  # the input is left alone
