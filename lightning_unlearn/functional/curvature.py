"""Products with the curvature of the mean cross-entropy, its dense matrix, and conjugate gradients to invert it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_unlearn.functional.modes import differentiable_in

__all__ = [
    "ConjugateGradient",
    "Curvature",
    "conjugate_gradient",
    "curvature_product",
    "dense_curvature",
    "flatten",
    "inverse_curvature_product",
    "unflatten",
]

Curvature = Literal["hessian", "ggn"]
_CHUNK = 512  # samples in one pass
_COLUMNS = 64  # of the dense matrix at once
_DENSE = 4096  # parameters of a dense matrix at most: 128 MiB in float64


class ConjugateGradient(NamedTuple):
    """What `conjugate_gradient` reached.

    Attributes:
        x: (P,), float64.
        products: Products with H that it took.
        negative: Curvature of the direction that it ended at because it is not positive, d^T (H + lambda I) d / d^T d; the
            lowest eigenvalue is no higher. None where it ended at the tolerance or after all iterations.
    """

    x: Tensor
    products: int
    negative: float | None = None


def flatten(values: Mapping[str, Tensor]) -> Tensor:
    """One vector of all values, in their order.

    Args:
        values: By name.

    Returns:
        (P,).
    """
    return torch.cat([value.flatten() for value in values.values()])


def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`.

    Args:
        flat: (P,).
        like: Tensors whose names, shapes and dtypes the parts take.

    Returns:
        By name.
    """
    parts = torch.split(flat, [value.numel() for value in like.values()])
    return {name: part.view_as(value).to(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def curvature_product(
    network: nn.Module, x: Tensor, labels: Tensor, vector: Mapping[str, Tensor], kind: Curvature = "ggn"
) -> dict[str, Tensor]:
    """H v, H the curvature of the mean cross-entropy in the named parameters.

    `hessian`: the second derivative, as the derivative of the gradient (Pearlmutter 1994). `ggn`: the generalised
    Gauss-Newton matrix, the mean of J^T (diag(p) - p p^T) J with J the Jacobian of the logits (Schraudolph 2002): positive
    semi-definite, the Fisher matrix of the model, and the Hessian where logits are linear in the parameters.

    Runs in eval mode and without autocast; the network is left as it was found.

    Args:
        network: Gives logits (N, K); in eval mode, each sample's on its own.
        x: Input (N, ...), N at least 1.
        labels: (N,), int64.
        vector: v, by parameter name, of the parameters' shapes.
        kind: Which matrix.

    Returns:
        By name, of the parameters' shapes and dtypes.
    """
    own = {name: network.get_parameter(name).detach() for name in vector}
    v = {name: vector[name].to(p) for name, p in own.items()}
    total = {name: torch.zeros_like(p) for name, p in own.items()}
    # Fused attention has no second derivative, and no rule for `vmap`.
    with differentiable_in(network, ()), sdpa_kernel(SDPBackend.MATH):
        for begin in range(0, len(x), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            product = _sum_product(network, own, x[part], labels[part], v, kind)
            total = {name: value + product[name] for name, value in total.items()}
    return {name: value / len(x) for name, value in total.items()}


def dense_curvature(network: nn.Module, x: Tensor, labels: Tensor, names: Sequence[str], kind: Curvature = "ggn") -> Tensor:
    """The matrix of `curvature_product`, for few parameters: a product for each of them.

    Args:
        network: See `curvature_product`.
        x: See `curvature_product`.
        labels: See `curvature_product`.
        names: Parameter names; P numbers in all.
        kind: Which matrix.

    Returns:
        (P, P), float64, symmetric; rows in the order of `names`.
    """
    own = {name: network.get_parameter(name).detach() for name in names}
    size = sum(value.numel() for value in own.values())
    matrix = torch.zeros(size, size, dtype=torch.float64, device=x.device)
    with differentiable_in(network, ()), sdpa_kernel(SDPBackend.MATH):
        for begin in range(0, len(x), _CHUNK):
            part = slice(begin, begin + _CHUNK)

            def column(unit: Tensor, part: slice = part) -> Tensor:
                return flatten(_sum_product(network, own, x[part], labels[part], unflatten(unit, own), kind))

            for first in range(0, size, _COLUMNS):
                units = torch.eye(size, dtype=x.dtype, device=x.device)[first : first + _COLUMNS]
                matrix[first : first + _COLUMNS] += vmap(column)(units).double()
    return (matrix + matrix.mT) / (2 * len(x))


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], right: Tensor, damping: float, iterations: int, tolerance: float = 1e-4
) -> ConjugateGradient:
    """The solution of (H + lambda I) x = b by conjugate gradients (Hestenes and Stiefel 1952).

    Ends where a direction has no positive curvature, as truncated Newton methods do: what was reached until then is no
    solution, and the result says so.

    Args:
        product: H v of (P,); H symmetric.
        right: b (P,).
        damping: lambda, 0 or more.
        iterations: At most; each takes one product.
        tolerance: Norm of the residual, relative to that of b, at which it ends.

    Returns:
        x, what it took, and whether it ended early.
    """
    b = right.double()
    x, residual = torch.zeros_like(b), b.clone()
    direction, size = residual.clone(), residual.square().sum()
    aim = tolerance**2 * size
    done = 0
    while done < iterations and size > aim:
        along = product(direction.to(right)).double() + damping * direction
        done += 1
        curvature = direction @ along
        if not curvature > 0:
            return ConjugateGradient(x, done, float(curvature / direction.square().sum()))
        x += (size / curvature) * direction
        residual -= (size / curvature) * along
        before, size = size, residual.square().sum()
        direction = residual + (size / before) * direction
    return ConjugateGradient(x, done)


def inverse_curvature_product(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    vector: Mapping[str, Tensor],
    damping: float,
    kind: Curvature = "ggn",
    iterations: int | None = None,
) -> tuple[dict[str, Tensor], int]:
    """(H + lambda I)^-1 v, H the curvature of the mean cross-entropy.

    Args:
        network: See `curvature_product`.
        x: See `curvature_product`.
        labels: See `curvature_product`.
        vector: v, by parameter name, of the parameters' shapes.
        damping: lambda, 0 or more.
        kind: Which matrix.
        iterations: Of conjugate gradients, at most; None: exact, with the dense matrix.

    Returns:
        By name, of the parameters' shapes and dtypes; and the number of products with H.

    Raises:
        ValueError: There are too many parameters for a dense matrix, or the matrix was found not to be positive definite.
    """
    b = flatten(vector)
    if iterations is not None:

        def product(flat: Tensor) -> Tensor:
            return flatten(curvature_product(network, x, labels, unflatten(flat, vector), kind))

        found = conjugate_gradient(product, b, damping, iterations)
        if found.negative is not None:
            raise ValueError(_not_positive(kind, "at most ", found.negative, damping))
        return unflatten(found.x, vector), found.products
    if len(b) > _DENSE:
        raise ValueError(
            f"{len(b)} parameters are chosen, and the dense matrix takes {_DENSE} at most. Choose fewer (parts: [head]), or "
            "the solver cg."
        )
    matrix = dense_curvature(network, x, labels, list(vector), kind)
    matrix.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        lowest = float(torch.linalg.eigvalsh(matrix)[0])
        raise ValueError(_not_positive(kind, "", lowest, damping))
    return unflatten(torch.cholesky_solve(b.double()[:, None], factor)[:, 0], vector), len(b)


def _not_positive(kind: Curvature, bound: str, lowest: float, damping: float) -> str:
    return (
        f"the lowest eigenvalue of the {kind} matrix is {bound}{lowest:.3g} with the damping {damping}; needed: above 0. Raise "
        "the damping, or choose ggn."
    )


def _sum_product(
    network: nn.Module, own: dict[str, Tensor], x: Tensor, labels: Tensor, v: dict[str, Tensor], kind: Curvature
) -> dict[str, Tensor]:
    """The sum over samples, for `curvature_product`."""

    def logits(values: dict[str, Tensor]) -> Tensor:
        out: Tensor = functional_call(network, values, (x,))
        return out

    def loss(values: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(logits(values), labels, reduction="sum")

    # Reverse mode twice, as the matrices are symmetric: what has a second derivative needs no forward-mode one.
    if kind == "hessian":
        along: dict[str, Tensor] = vjp(grad(loss), own)[1](v)[0]
        return along
    out, pull, *_ = vjp(logits, own)
    moved: Tensor = vjp(lambda u: pull(u)[0], torch.zeros_like(out))[1](v)[0]
    p = out.softmax(1)
    pulled: dict[str, Tensor] = pull(p * moved - p * (p * moved).sum(1, keepdim=True))[0]
    return pulled
