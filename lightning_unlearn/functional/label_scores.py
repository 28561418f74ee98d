"""How suspect a label is: one number per sample, high where the label is likely wrong; and how well such numbers do."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.functional.ranks import share_won
from lightning_unlearn.functional.residuals import label_residual

__all__ = [
    "Decision",
    "LastLayer",
    "area_under_margin",
    "auroc",
    "decision",
    "early_loss",
    "final_loss",
    "mean_loss",
    "negative_margin",
    "other_label",
    "self_influence",
    "total_influence",
    "voted_label",
]

_ROWS = 4096  # samples at once


def final_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the given labels.

    Args:
        logits: (N, K), any floating type.
        labels: (N,), int64.

    Returns:
        (N,), float64, nats, 0 or more.
    """
    return F.cross_entropy(logits.double(), labels, reduction="none")


def negative_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest logit of another class minus that of the given label.

    Args:
        logits: (N, K), K at least 2.
        labels: (N,), int64.

    Returns:
        (N,), float64; above 0 where the model disagrees.
    """
    wide, own = logits.double(), labels[:, None]
    return wide.scatter(1, own, -torch.inf).max(1).values - wide.gather(1, own).squeeze(1)


def area_under_margin(margin_sum: Tensor, seen: Tensor) -> Tensor:
    """Minus the area under the margin: the mean over epochs of the given label's logit minus the largest other one.

    Pleiss et al. 2020 (NeurIPS), "Identifying Mislabeled Data using the Area Under the Margin Ranking".

    Args:
        margin_sum: Sum of the margins over the epochs, (N,).
        seen: How many epochs served the sample, (N,).

    Returns:
        (N,), float64; NaN for samples that no epoch served.
    """
    return -margin_sum.double() / torch.where(seen > 0, seen.double(), torch.nan)


def early_loss(losses: Tensor, epoch: int) -> Tensor:
    """Loss at one epoch of the training: wrong labels are learnt later than right ones (Arpit et al. 2017, ICML).

    Args:
        losses: (E, N), NaN where an epoch did not serve a sample.
        epoch: Which, from 1 to E.

    Returns:
        (N,), float64.

    Raises:
        ValueError: There is no such epoch.
    """
    if not 1 <= epoch <= len(losses):
        raise ValueError(f"epoch is {epoch}; needed: 1 to {len(losses)}, the epochs that were recorded.")
    return losses[epoch - 1].double()


def mean_loss(losses: Tensor) -> Tensor:
    """Mean loss over the epochs of the training; the early ones, whose losses are large, decide, and none need be chosen.

    Args:
        losses: (E, N), NaN where an epoch did not serve a sample.

    Returns:
        (N,), float64; NaN for samples that no epoch served.
    """
    return losses.double().nanmean(0)


class LastLayer(NamedTuple):
    """What the gradient of the cross-entropy in a linear last layer is made of: for sample i it is r_i h_i^T.

    Attributes:
        residuals: r = softmax - one-hot label, (N, K), float64.
        inputs: h = features with a 1 for the bias, (N, D + 1), float64.
    """

    residuals: Tensor
    inputs: Tensor

    @classmethod
    def of(cls, features: Tensor, logits: Tensor, labels: Tensor) -> "LastLayer":
        """From one forward pass.

        Args:
            features: Input of the last layer, (N, D).
            logits: (N, K).
            labels: (N,), int64.

        Returns:
            Both factors.
        """
        return cls(label_residual(logits.double(), labels), F.pad(features.double(), (0, 1), value=1.0))

    def at(self, index: Tensor | slice) -> "LastLayer":
        """Some of the samples.

        Args:
            index: Which.

        Returns:
            Their factors.
        """
        return LastLayer(self.residuals[index], self.inputs[index])

    def inner(self, other: "LastLayer") -> Tensor:
        """Inner products of gradients.

        Args:
            other: M samples.

        Returns:
            (N, M).
        """
        return (self.residuals @ other.residuals.mT) * (self.inputs @ other.inputs.mT)

    def along(self, gradient: Tensor) -> Tensor:
        """Inner products with one gradient.

        Args:
            gradient: (K, D + 1).

        Returns:
            (N,).
        """
        return ((self.residuals @ gradient) * self.inputs).sum(1)


def self_influence(layer: LastLayer, basis: Tensor, damping: float) -> Tensor:
    """Influence of each sample on its own loss, g^T (F + lambda I)^-1 g, in the last layer.

    Koh and Liang 2017 (ICML) rank it to find wrong labels. F is the empirical Fisher matrix of the `basis`, inverted in
    sample space by Sherman, Morrison and Woodbury, as `inverse_products.inverse_fisher_product` does for one vector.

    Args:
        layer: The samples.
        basis: Which of them make F, (M,), int64; memory and time grow with M squared.
        damping: lambda, above 0.

    Returns:
        (N,), float64, 0 or more.
    """
    known = layer.at(basis)
    factor = _system(known, damping)
    parts = []
    for begin in range(0, len(layer.residuals), _ROWS):
        some = layer.at(slice(begin, begin + _ROWS))
        along = some.inner(known)
        norms = some.residuals.square().sum(1) * some.inputs.square().sum(1)
        parts.append((norms - (along * torch.cholesky_solve(along.mT, factor).mT).sum(1)) / damping)
    return torch.cat(parts)


def total_influence(layer: LastLayer, basis: Tensor, damping: float) -> Tensor:
    """What leaving a sample out adds to the total training loss, to first order: (1/N) G^T (F + lambda I)^-1 g, G = sum of g.

    A model that has learnt nearly everything owes what loss it has to few samples, and those with wrong labels are among
    them: their gradients make G. Early in a training, where G is that of the many right ones, the sign turns round.

    Args:
        layer: See `self_influence`.
        basis: See `self_influence`.
        damping: See `self_influence`.

    Returns:
        (N,), float64, nats.
    """
    known = layer.at(basis)
    total = layer.residuals.mT @ layer.inputs
    weights = torch.cholesky_solve(known.along(total)[:, None], _system(known, damping)).squeeze(1)
    # (F + lambda I)^-1 G as a matrix of the layer's shape.
    product = (total - known.residuals.mT @ (weights[:, None] * known.inputs)) / damping
    return layer.along(product) / len(layer.residuals)


def _system(known: LastLayer, damping: float) -> Tensor:
    system = known.inner(known)
    system.diagonal().add_(damping * len(system))
    factor: Tensor = torch.linalg.cholesky(system)
    return factor


def other_label(scores: Tensor, labels: Tensor) -> Tensor:
    """The class that a label would rather be: the most likely one besides it.

    Args:
        scores: Logits or probabilities, (N, K).
        labels: Given labels, (N,), int64.

    Returns:
        (N,), int64, never the given label. Where a model disagrees with the label, its prediction.
    """
    return scores.scatter(1, labels[:, None], -torch.inf).argmax(1)


def voted_label(losses: Tensor, rivals: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The same from a training's record: each epoch votes for its strongest other class, by how little it believed the label.

    The vote's weight is 1 - p, p the probability of the label: an epoch that knows the label by heart has no say.

    Args:
        losses: (E, N), NaN where an epoch did not serve a sample.
        rivals: Strongest other class, (E, N), integers, below 0 where an epoch did not.
        labels: Given labels, (N,), int64.
        num_classes: K.

    Returns:
        (N,), int64.
    """
    weights = torch.where(rivals >= 0, -torch.expm1(-losses.double()), 0.0).nan_to_num(0.0)
    votes = torch.zeros(losses.shape[1], num_classes, dtype=torch.float64)
    for row, weight in zip(rivals.long().clamp(min=0), weights, strict=True):
        votes.scatter_add_(1, row[:, None], weight[:, None])
    return other_label(votes, labels)


def auroc(scores: Tensor, wrong: Tensor) -> float:
    """The chance that a sample with a wrong label scores above one with a right label; ties count half.

    Args:
        scores: (N,), finite.
        wrong: (N,), bool.

    Returns:
        0 ... 1; NaN where all labels are right, or all wrong.
    """
    if bool(wrong.all()) or not bool(wrong.any()):
        return float("nan")
    return share_won(scores[wrong], scores[~wrong])


class Decision(NamedTuple):
    """How well suspects were chosen, each 0 ... 1.

    Attributes:
        precision: Part of the suspects whose label is wrong; NaN without suspects.
        recall: Part of the wrong labels that are suspected; NaN without wrong ones.
        f1: Harmonic mean of both; 0 where no suspect is wrong.
    """

    precision: float
    recall: float
    f1: float


def decision(suspected: Tensor, wrong: Tensor) -> Decision:
    """Judge a choice of suspects.

    Args:
        suspected: (N,), bool.
        wrong: (N,), bool.

    Returns:
        Precision, recall and F1.
    """
    hits, chosen, there = int((suspected & wrong).sum()), int(suspected.sum()), int(wrong.sum())
    nan = float("nan")
    f1 = 2 * hits / (chosen + there) if chosen + there else nan
    return Decision(hits / chosen if chosen else nan, hits / there if there else nan, f1)
