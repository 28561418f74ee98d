"""Products with the inverse of a damped empirical Fisher matrix, in sample space: no matrix of parameters by parameters.

Nor one of samples by parameters, where layers have a formula (`layer_gram`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_unlearn.functional.layer_gram import layer_gram
from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.functional.residuals import label_residual

__all__ = ["gram", "gram_by_columns", "inverse_fisher_product"]

_BYTES = 512 * 2**20  # of per-sample gradients that are kept at once
_CHUNK = 128  # samples in one pass, at most


def _passes(columns: int, samples: int, bytes_each: int, kept_bytes: int = _BYTES) -> int:
    """How often `gram_by_columns` runs over the samples.

    Args:
        columns: P, number of parameters.
        samples: N.
        bytes_each: Bytes of a number.
        kept_bytes: Bytes of a slice.

    Returns:
        Number of slices, at least 1.
    """
    return -(-columns // max(1, kept_bytes // (samples * bytes_each)))


def gram_by_columns(
    network: nn.Module, x: Tensor, labels: Tensor, vector: Mapping[str, Tensor], kept_bytes: int = _BYTES
) -> tuple[Tensor, Tensor]:
    """Inner products of per-sample gradients of the cross-entropy: with each other and with a vector.

    The matrix of gradients G (N, P) is made in slices of columns that fit into `kept_bytes`, each in one pass over the
    samples, and never as a whole.

    Args:
        network: Gives logits (N, K); in eval mode, each sample's on its own.
        x: Input (N, ...).
        labels: (N,), int64.
        vector: v (P,), by parameter name, of the parameters' shapes.
        kept_bytes: Bytes of a slice.

    Returns:
        G G^T (N, N) and G v (N,), float64.
    """
    own = {name: network.get_parameter(name).detach() for name in vector}
    v = torch.cat([vector[name].to(p).flatten() for name, p in own.items()])
    width = -(-len(v) // _passes(len(v), len(x), v.element_size(), kept_bytes))
    together = min(_CHUNK, max(1, kept_bytes // (len(v) * v.element_size())))

    def gradient(values: dict[str, Tensor], x: Tensor, label: Tensor) -> dict[str, Tensor]:
        logits, back, *_ = vjp(lambda own: functional_call(network, own, (x.unsqueeze(0),)), values)
        found: dict[str, Tensor] = back(label_residual(logits, label.unsqueeze(0)))[0]
        return found

    products = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    along = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for first in range(0, len(v), width):
        columns = slice(first, first + width)
        rows = []
        for begin in range(0, len(x), together):
            part = slice(begin, begin + together)
            grads: dict[str, Tensor] = vmap(gradient, (None, 0, 0))(own, x[part], labels[part])
            flat = torch.cat([grads[name].flatten(1) for name in own], 1)
            rows.append(flat[:, columns].clone())
        g = torch.cat(rows)
        products += (g @ g.mT).double()
        along += (g @ v[columns]).double()
    return products, along


def gram(
    network: nn.Module, x: Tensor, labels: Tensor, vector: Mapping[str, Tensor], kept_bytes: int = _BYTES
) -> tuple[Tensor, Tensor, int]:
    """The same layer by layer, without G; what has no formula goes by columns. Use it in `differentiable_in`.

    Args:
        network: Gives logits (N, K); in eval mode, each sample's on its own.
        x: Input (N, ...).
        labels: (N,), int64.
        vector: v (P,), by parameter name, of the parameters' shapes.
        kept_bytes: Of what is kept of layers, or of a slice, at once.

    Returns:
        G G^T (N, N) and G v (N,), float64, and how often the samples went forward and backward.
    """
    products, along, left, runs = layer_gram(network, x, labels, vector, kept_bytes)
    if left:
        rest = {name: vector[name] for name in left}
        more = gram_by_columns(network, x, labels, rest, kept_bytes)
        products, along = products + more[0], along + more[1]
        runs += _passes(sum(value.numel() for value in rest.values()), len(x), x.element_size(), kept_bytes)
    return products, along, runs


def inverse_fisher_product(
    network: nn.Module, x: Tensor, labels: Tensor, vector: Mapping[str, Tensor], damping: float, kept_bytes: int = _BYTES
) -> tuple[dict[str, Tensor], int]:
    """(F + lambda I)^-1 v with the empirical Fisher matrix F = G^T G / N over N samples, exactly.

    By Sherman, Morrison and Woodbury: (v - G^T (lambda N I + G G^T)^-1 G v) / lambda. G G^T and G v come from `gram`, G^T c is
    the gradient of a weighted sum of losses, and the system has N unknowns, solved in float64. This is what the recursion of
    WoodFisher (Singh and Alistarh 2020, NeurIPS) computes sample by sample.

    Runs in eval mode and without autocast; the network is left as it was found.

    Args:
        network: Gives logits (N, K).
        x: Input (N, ...), N at least 1.
        labels: (N,), int64.
        vector: v, by parameter name, of the parameters' shapes.
        damping: lambda, above 0.
        kept_bytes: See `gram`.

    Returns:
        By name, of the parameters' shapes and dtypes; and how often the samples went forward and backward.

    Raises:
        ValueError: `damping` is not above 0, or there is no sample.
    """
    if damping <= 0 or not len(x):
        raise ValueError(f"damping is {damping} and there are {len(x)} samples; needed: above 0, and at least one sample.")
    own = {name: network.get_parameter(name) for name in vector}
    product = {name: vector[name].to(p, copy=True) for name, p in own.items()}
    # Fused attention has no rule for `vmap`.
    with differentiable_in(network, list(own)), sdpa_kernel(SDPBackend.MATH):
        system, along, runs = gram(network, x, labels, vector, kept_bytes)
        system.diagonal().add_(damping * len(x))
        weights = torch.linalg.solve(system, along)
        for begin in range(0, len(x), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            logits = network(x[part])
            gradient = weights[part].to(logits)[:, None] * label_residual(logits, labels[part])
            grads = torch.autograd.grad(logits, list(own.values()), gradient, materialize_grads=True)
            for name, value in zip(own, grads, strict=True):
                product[name] -= value
    return {name: value / damping for name, value in product.items()}, runs + 1
