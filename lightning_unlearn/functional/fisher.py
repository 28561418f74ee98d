"""Diagonal Fisher information: squared gradients of the log-likelihood, summed over samples."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.functional.per_sample import SquaredGradients
from lightning_unlearn.functional.residuals import label_residual

Kind = Literal["empirical", "model", "model_mc"]

__all__ = ["Kind", "diagonal_fisher"]


def diagonal_fisher(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: Kind = "empirical",
    names: Sequence[str] | None = None,
    per_sample: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], int]:
    """Sum over samples of the squared gradient of the cross-entropy, for each parameter.

    With L(x, y) the cross-entropy of the network's logits:

    * `empirical`: sum_n (d L(x_n, y_n))^2 at the given labels: the cheapest, one backward pass.
    * `model`: sum_n sum_y p(y | x_n) (d L(x_n, y))^2, the model's own Fisher: K - 1 backward passes for K classes.
    * `model_mc`: the same with one label drawn from p(. | x_n): unbiased for `model` at the cost of `empirical`.

    `per_sample=False` squares the gradient of each batch's *mean* loss instead, as much public code does; for
    `model` each class is then weighted by its mean probability in the batch. The count is that of batches.

    Runs in eval mode, without autocast, in float32 (float64 for float64 networks). The network is left as it was
    found: modes, gradients and `requires_grad`, also after an error.

    Args:
        network: Its forward takes one tensor (N, ...) and gives logits (N, K).
        batches: Pairs of input (N, ...) and labels (N,) int64, on the network's device; labels are only read by
            `empirical`. Empty batches are skipped. A sub-sample of about 2,000 is enough for most uses.
        kind: See above.
        names: Parameter names; None for all. A parameter need not require a gradient.
        per_sample: Squares of per-sample gradients (the definition), or of batch means.
        generator: For the labels of `model_mc`, on the CPU; None draws from the global generator.

    Returns:
        Name -> sum, of the parameter's shape, at least float32, on its device; and the number of samples (of batches with
        `per_sample=False`). The mean is left to the caller, so that several processes can add up first.

    Raises:
        ValueError: If `kind` is unknown, a name is not the network's, or there is no parameter.
    """
    if kind not in {"empirical", "model", "model_mc"}:
        raise ValueError(f"kind is {kind!r}; needed: 'empirical', 'model' or 'model_mc'.")
    known = [name for name, _ in network.named_parameters()]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"names holds {unknown[0]!r}, which {type(network).__name__} does not have.")
    chosen = known if names is None else [name for name in known if name in set(names)]
    if not chosen:
        raise ValueError("There is no parameter to compute the Fisher information of; needed: at least one.")
    own = dict(network.named_parameters())
    dtype = own[chosen[0]].dtype
    count = 0
    with differentiable_in(network, chosen):
        squares = SquaredGradients(network, chosen)
        for x, labels in batches:
            if not len(x):
                continue
            x = x.to(dtype) if x.is_floating_point() else x
            if per_sample:
                squares.add(x, partial(_score_vectors, labels=labels, kind=kind, generator=generator))
                count += len(x)
            else:
                for name, value in _squares_of_means(network, chosen, x, labels, kind, generator).items():
                    squares.sums[name] += value
                count += 1
    return squares.sums, count


def _labels(logits: Tensor, labels: Tensor, kind: Kind, generator: torch.Generator | None) -> Tensor:
    if kind == "empirical":
        return labels
    # Drawn on the CPU, so that a seed gives the same labels on every device.
    return torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator).squeeze(1).to(logits.device)


def _score_vectors(logits: Tensor, rows: slice, labels: Tensor, kind: Kind, generator: torch.Generator | None) -> list[Tensor]:
    """Vectors v (N, K) at the logits whose outer products v v^T add up to what is wanted of each sample."""
    if kind == "model":
        return _roots(logits.softmax(1))
    return [label_residual(logits, _labels(logits, labels[rows], kind, generator))]


def _roots(p: Tensor) -> list[Tensor]:
    """The K - 1 columns of the Cholesky factor of diag(p) - p p^T = sum_y p_y (p - e_y) (p - e_y)^T."""
    # With q_j = p_j + ... + p_K, column j is sqrt(p_j q_(j+1) / q_j) at j and -p_i / q_(j+1) times that at i > j. One
    # backward pass fewer than with one vector for each class (half the work for two), and no 1 - p to cancel.
    if p.shape[1] == 1:
        return [torch.zeros_like(p)]
    tiny = torch.finfo(p.dtype).tiny
    q = p.flip(1).cumsum(1).flip(1).clamp_min(tiny)
    columns = []
    for j in range(p.shape[1] - 1):
        pivot = (p[:, j] / q[:, j] * q[:, j + 1]).sqrt().unsqueeze(1)
        columns.append(torch.cat([p.new_zeros(len(p), j), pivot, -p[:, j + 1 :] / q[:, j + 1 : j + 2] * pivot], 1))
    return columns


def _squares_of_means(
    network: nn.Module,
    names: Sequence[str],
    x: Tensor,
    labels: Tensor,
    kind: Kind,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    own = dict(network.named_parameters())
    logits = network(x)
    p = logits.detach().softmax(1)
    if kind == "model":
        weighted = [(p[:, y].mean(), torch.full_like(p[:, y], y, dtype=torch.int64)) for y in range(p.shape[1])]
    else:
        weighted = [(p.new_ones(()), _labels(logits.detach(), labels, kind, generator))]
    total: dict[str, Tensor] = {}
    for i, (weight, targets) in enumerate(weighted):
        grads = torch.autograd.grad(
            logits,
            [own[name] for name in names],
            label_residual(logits, targets) / len(x),
            retain_graph=i + 1 < len(weighted),
            materialize_grads=True,
        )
        for name, grad in zip(names, grads, strict=True):
            value = weight * grad.square()
            total[name] = total[name] + value if name in total else value
    return total
