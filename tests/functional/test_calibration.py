import pytest
import torch

from lightning_unlearn.functional.calibration import (
    log_odds,
    match_quantiles,
    neighbour_votes,
    sharpening_exponent,
    strike_classes,
    with_log_odds,
)


def distributions(n, k, seed=0):
    source = torch.Generator().manual_seed(seed)
    p = torch.rand(n, k, generator=source, dtype=torch.float64) + 0.01
    return p / p.sum(1, keepdim=True), torch.randint(k, (n,), generator=source)


def test_log_odds_of_the_label():
    p = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.log(torch.tensor([0.25, 1.0, 1e-12 / (1 - 1e-12)], dtype=torch.float64))
    torch.testing.assert_close(log_odds(p, torch.tensor([0, 1, 1])), expected)


def test_quantiles_by_hand():
    """Among 4 members: below all is rank 0.5 / 5, between the second and third 2.5 / 5, a tie with the last 4 / 5."""
    members = torch.tensor([0.0, 1.0, 3.0, 4.0])
    unseen = torch.arange(11, dtype=torch.float64) * 10
    out = match_quantiles(torch.tensor([-9.0, 2.0, 4.0, 99.0]), members, unseen)
    torch.testing.assert_close(out, torch.tensor([10.0, 50.0, 80.0, 90.0], dtype=torch.float64))


def test_members_that_are_the_values_are_carried_over_in_distribution_and_in_order():
    p, targets = distributions(500, 7)
    values = log_odds(p, targets)
    unseen = log_odds(*distributions(400, 7, seed=1)) + 2
    out = match_quantiles(values, values, unseen)
    assert torch.equal(out.argsort(), values.argsort())
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    torch.testing.assert_close(out.quantile(levels), unseen.quantile(levels), rtol=0.1, atol=0.1)


def test_equal_values_are_spread_over_the_ranks_that_they_share():
    """A coarse estimate, as a vote of neighbours is: nine in ten values are the same."""
    source = torch.Generator().manual_seed(0)
    values, members = ((torch.rand(2000, generator=source) > 0.1).double() for _ in range(2))
    unseen = torch.randn(1000, generator=source, dtype=torch.float64)
    out, again = (match_quantiles(values, members, unseen, source=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(out, again)
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    torch.testing.assert_close(out.quantile(levels), unseen.quantile(levels), rtol=0.1, atol=0.1)
    assert out[values == 0].max() < out[values == 1].min() + 0.2


def test_a_difficult_request_stays_difficult_and_what_estimates_remember_falls_out():
    """Estimates are the truth plus what is remembered, alike for forgotten and retained samples."""
    source = torch.Generator().manual_seed(0)
    retained, unseen = (torch.randn(4000, generator=source, dtype=torch.float64) for _ in range(2))
    difficult = torch.randn(4000, generator=source, dtype=torch.float64) - 1
    out = match_quantiles(difficult + 3, retained + 3, unseen)
    assert abs(float((out - difficult).mean())) < 0.1


def test_noise_weakens_the_tie_and_leaves_the_distribution():
    source = torch.Generator().manual_seed(0)
    values, members, unseen = (torch.randn(4000, generator=source, dtype=torch.float64) for _ in range(3))
    noisy, again = (match_quantiles(values, members, unseen, 1.0, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(noisy, again)
    correlation = torch.corrcoef(torch.stack([values, noisy]))[0, 1]
    assert abs(float(correlation) - 0.5**0.5) < 0.05  # 1 / sqrt(1 + 1)
    assert abs(float(noisy.mean() - unseen.mean())) < 0.1
    assert abs(float(noisy.std() / unseen.std()) - 1) < 0.05


@pytest.mark.parametrize(("members", "unseen"), [(0, 3), (3, 0)])
def test_nothing_to_match_with_is_refused(members, unseen):
    with pytest.raises(ValueError, match=f"{members} members and {unseen} unseen"):
        match_quantiles(torch.zeros(3), torch.zeros(members), torch.zeros(unseen))


def test_given_log_odds_and_shares_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    targets = torch.tensor([0, 0])
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for exponent in (1.0, 2.0):
        out = with_log_odds(p, targets, values, exponent)
        torch.testing.assert_close(log_odds(out, targets), values)
        torch.testing.assert_close(out.sum(1), torch.ones(2, dtype=torch.float64))
        torch.testing.assert_close(out[0, 1] / out[0, 2], torch.tensor(2.0, dtype=torch.float64) ** exponent)


def test_the_exponent_is_found_again():
    p, targets = distributions(2000, 6)
    sharp = with_log_odds(p, targets, log_odds(p, targets), 2.5)
    assert sharpening_exponent(p, targets, sharp, targets) == pytest.approx(2.5, abs=0.01)
    assert sharpening_exponent(p, targets, p, targets) == pytest.approx(1, abs=0.01)


def test_a_sample_of_the_bank_is_not_its_own_neighbour():
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    assert neighbour_votes(bank, bank, labels, 1, 3).argmax(1).tolist() == [0, 1, 2]
    assert neighbour_votes(bank, bank, labels, 1, 3, own=True).argmax(1).tolist() == [1, 0, 1]


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


@pytest.mark.parametrize("lead", [2.0, 14.0, 30.0])
def test_shares_of_the_other_classes_do_not_depend_on_how_sure_an_answer_is(lead):
    logits = torch.randn(200, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    targets = torch.arange(200) % 10
    sure = logits.scatter(1, targets[:, None], lead + logits.max(1, keepdim=True).values)
    members = torch.rand(300, 10, generator=torch.Generator().manual_seed(1)).softmax(1)
    labels = torch.arange(300) % 10
    expected = sharpening_exponent(members, labels, logits.softmax(1), targets)
    assert sharpening_exponent(members, labels, sure.softmax(1), targets) == pytest.approx(expected, rel=1e-4)
    # A target that is only lowered keeps what stands behind the label.
    lowered = with_log_odds(sure.softmax(1), targets, log_odds(sure.softmax(1), targets, 1e-300) - 1)
    found, wanted = (p.scatter(1, targets[:, None], 0) for p in (lowered, logits.softmax(1)))
    torch.testing.assert_close(found / found.sum(1, keepdim=True), wanted / wanted.sum(1, keepdim=True))


def test_what_has_nothing_behind_its_label_shares_evenly():
    certain = torch.eye(4, dtype=torch.float64)
    found = with_log_odds(certain, torch.arange(4), torch.zeros(4))
    torch.testing.assert_close(found, 0.5 * certain + (1 - certain) / 6)
