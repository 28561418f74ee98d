"""Votes against counting by hand."""

import torch

from lightning_unlearn.functional.voting import majority_vote, mean_vote


def test_majority_vote_is_a_distribution_with_the_majority_on_top():
    logits = torch.randn(5, 200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = majority_vote(logits)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(200, dtype=torch.float64))
    ties = 0
    for i in range(200):
        votes = [0, 0, 0]
        for member in logits[:, i]:
            votes[int(member.argmax())] += 1
        mean = logits[:, i].softmax(1).mean(0)
        best = [k for k in range(3) if votes[k] == max(votes)]
        ties += len(best) > 1
        assert int(found[i].argmax()) == max(best, key=lambda k: float(mean[k]))
        torch.testing.assert_close(found[i].exp(), (torch.tensor(votes) + mean) / 6)
    assert ties > 10


def test_mean_vote_is_the_logarithm_of_the_mean():
    logits = torch.randn(4, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean_vote(logits).exp(), logits.softmax(2).mean(0))


def test_sure_members_give_finite_answers_and_gradients():
    for vote in (majority_vote, mean_vote):
        logits = torch.tensor([[[1000.0, 0.0, -1000.0]]] * 2, requires_grad=True)
        vote(logits)[:, 1].sum().backward()
        assert vote(logits).isfinite().all()
        assert logits.grad.isfinite().all()
        assert (logits.grad != 0).any()
