import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from torch import nn

from lightning_unlearn.functional.inverse_products import inverse_fisher_product
from lightning_unlearn.functional.label_scores import (
    LastLayer,
    area_under_margin,
    auroc,
    decision,
    early_loss,
    final_loss,
    mean_loss,
    negative_margin,
    other_label,
    self_influence,
    total_influence,
    voted_label,
)

N, D, K = 60, 5, 4


@pytest.fixture
def layer():
    torch.manual_seed(0)
    head = nn.Linear(D, K).double()
    features, labels = torch.randn(N, D, dtype=torch.float64), torch.randint(K, (N,))
    return head, features, labels


def gradients(head, features, labels):
    """Per-sample gradients one by one, (N, P)."""
    losses = [F.cross_entropy(head(x[None]), y[None]) for x, y in zip(features, labels, strict=True)]
    return torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(z, list(head.parameters()))]) for z in losses])


def test_loss_and_margin_by_hand(layer):
    head, features, labels = layer
    logits = head(features).detach()
    for i in range(N):
        others = [float(logits[i, k]) for k in range(K) if k != labels[i]]
        own = float(logits[i, labels[i]])
        assert float(negative_margin(logits, labels)[i]) == pytest.approx(max(others) - own)
        assert float(final_loss(logits, labels)[i]) == pytest.approx(-float(logits[i].softmax(0)[labels[i]].log()))
        assert float(logits[i, other_label(logits, labels)[i]]) == pytest.approx(max(others))


def test_a_record_is_averaged_over_the_epochs_that_served_a_sample():
    nan = float("nan")
    losses = torch.tensor([[3.0, nan, nan], [1.0, 2.0, nan]])
    assert mean_loss(losses).tolist()[:2] == [2.0, 2.0]
    assert bool(mean_loss(losses)[2].isnan())
    scores = area_under_margin(torch.tensor([4.0, -1.0, 0.0]), torch.tensor([2, 1, 0]))
    assert scores.tolist()[:2] == [-2.0, 1.0]
    assert bool(scores[2].isnan())
    assert early_loss(losses, 2).tolist()[:2] == [1.0, 2.0]
    for epoch in (0, 3):
        with pytest.raises(ValueError, match="1 to 2, the epochs that were recorded"):
            early_loss(losses, epoch)


@pytest.mark.parametrize("damping", [1e-4, 0.3])
@pytest.mark.parametrize("size", [N, 23])
def test_influence_is_that_of_the_dense_inverse(layer, damping, size):
    head, features, labels = layer
    g, basis = gradients(*layer), torch.randperm(N)[:size]
    # float32 logits in, float64 out: the oracle gets the same logits.
    parts = LastLayer.of(features, head(features).detach(), labels)
    inverse = torch.linalg.inv(g[basis].T @ g[basis] / size + damping * torch.eye(g.shape[1]).double())
    torch.testing.assert_close(self_influence(parts, basis, damping), ((g @ inverse) * g).sum(1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(total_influence(parts, basis, damping), g @ inverse @ g.sum(0) / N, rtol=1e-7, atol=1e-9)


def test_influence_is_the_product_that_stages_use(layer):
    head, features, labels = layer
    weight, bias = torch.autograd.grad(F.cross_entropy(head(features), labels), list(head.parameters()))
    total = {"weight": weight, "bias": bias}
    product, _ = inverse_fisher_product(head, features, labels, total, 1e-2)
    expected = gradients(*layer) @ torch.cat([product["weight"].flatten(), product["bias"]])
    parts = LastLayer.of(features, head(features).detach(), labels)
    torch.testing.assert_close(total_influence(parts, torch.arange(N), 1e-2), expected, rtol=1e-8, atol=1e-12)


def test_total_influence_is_what_leaving_a_sample_out_adds(layer):
    """The step of leaving out, H^-1 g / n, taken: the total loss changes as predicted, to first order."""
    head, features, labels = layer
    damping, eps = 0.5, 1e-5
    g = gradients(*layer)
    inverse = torch.linalg.inv(g.T @ g / N + damping * torch.eye(g.shape[1]).double())
    parts = LastLayer.of(features, head(features).detach(), labels)
    predicted = total_influence(parts, torch.arange(N), damping)
    before = F.cross_entropy(head(features), labels, reduction="sum").detach()
    for i in range(3):
        step = eps * inverse @ g[i] / N
        moved = nn.Linear(D, K).double()
        with torch.no_grad():
            moved.weight.copy_(head.weight + step[: D * K].view(K, D))
            moved.bias.copy_(head.bias + step[D * K :])
            rise = (F.cross_entropy(moved(features), labels, reduction="sum") - before) / eps
        assert float(rise) == pytest.approx(float(predicted[i]), rel=1e-3, abs=1e-6)


def test_votes_are_weighted_by_disbelief():
    # Epoch 1 believes nothing (loss 5) and says 2; two later ones know the label by heart and say 1.
    losses = torch.tensor([[5.0], [1e-3], [1e-3], [float("nan")]])
    rivals = torch.tensor([[2], [1], [1], [-1]])
    assert voted_label(losses, rivals, torch.tensor([0]), 4).tolist() == [2]
    # Never the label itself, even where nothing votes.
    assert voted_label(losses[3:], rivals[3:], torch.tensor([0]), 4).tolist() == [1]


def test_judgements_are_scikit_learns():
    torch.manual_seed(1)
    scores, wrong = torch.randn(200).double().mul(3).round(), torch.rand(200) < 0.3
    assert auroc(scores, wrong) == pytest.approx(roc_auc_score(wrong.numpy(), scores.numpy()))
    suspected = scores > 1
    found = decision(suspected, wrong)
    for value, function in zip(found, (precision_score, recall_score, f1_score), strict=True):
        assert value == pytest.approx(function(wrong.numpy(), suspected.numpy()))


def test_judgements_without_cases():
    none, some = torch.zeros(3, dtype=torch.bool), torch.tensor([True, False, False])
    assert auroc(torch.rand(3), none) != auroc(torch.rand(3), none)
    found = decision(none, some)
    assert found.precision != found.precision
    assert (found.recall, found.f1) == (0.0, 0.0)
    assert decision(some, none).recall != decision(some, none).recall
