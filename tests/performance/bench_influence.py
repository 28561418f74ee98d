"""B5: the product with the inverse empirical Fisher matrix, layer by layer in sample space, against the textbook recursion.

Run by hand: `python tests/performance/bench_influence.py`. The recursion grows with the square of the samples, times all
weights; ours with the samples, times all weights, and with the square of the samples, times the width of the layers.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timing import medians, show
from torch import Tensor, nn

from lightning_unlearn.functional.inverse_products import gram_by_columns, inverse_fisher_product
from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.networks import MLP, SmallCNN

BUDGET = {"B5 mlp": 25}  # and apart by 1e-5 at most
DAMPING = 1e-2


def recursion(network: nn.Module, x: Tensor, y: Tensor, vector: dict[str, Tensor]) -> Tensor:
    """WoodFisher (Singh and Alistarh 2020), sample by sample: the inverse after n samples applied to gradient n + 1."""
    network.eval()
    own = list(network.parameters())
    flat = torch.cat([value.flatten() for value in vector.values()])
    product, kept, scales = flat / DAMPING, [], []
    for n in range(len(x)):
        loss = F.cross_entropy(network(x[n : n + 1]), y[n : n + 1])
        g = torch.cat([value.flatten() for value in torch.autograd.grad(loss, own)])
        o = g / DAMPING
        for earlier, scale in zip(kept, scales, strict=True):
            o.sub_(earlier, alpha=float(earlier @ g) / scale)
        kept.append(o)
        scales.append(len(x) + float(g @ o))
        product.sub_(o, alpha=float(o @ flat) / scales[-1])
    return product


def ours(network: nn.Module, x: Tensor, y: Tensor, vector: dict[str, Tensor]) -> Tensor:
    """The package's function."""
    found, _ = inverse_fisher_product(network, x, y, vector, DAMPING)
    return torch.cat([value.flatten() for value in found.values()])


def materialised(network: nn.Module, x: Tensor, y: Tensor, vector: dict[str, Tensor]) -> Tensor:
    """G G^T from per-sample gradients of the whole network: what the layer-wise form replaces."""
    with differentiable_in(network, list(vector)):
        return gram_by_columns(network, x, y, vector)[0]


NETWORKS = {
    "mlp": (partial(MLP, 10, image_size=28, hidden=(128,)), (1, 28, 28)),
    "cnn": (partial(SmallCNN, 10, image_size=8), (1, 8, 8)),
}


def run(name: str, samples: int = 200, repeats: int = 5) -> dict[str, object]:
    """Ratios of times, slow over fast, and how far the results are apart in float64 on 40 samples."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make()
    x, y = torch.randn(samples, *shape), torch.randint(10, (samples,))
    vector = {key: torch.randn_like(p) for key, p in network.named_parameters()}
    ways = {"fast": ours, "columns": materialised, "slow": recursion}
    times = medians({key: partial(way, network, x, y, vector) for key, way in ways.items()}, repeats)
    network.double()
    few = (network, x[:40].double(), y[:40], {key: value.double() for key, value in vector.items()})
    expected = recursion(*few)
    return {
        f"B5 {name}": round(times["slow"] / times["fast"], 1),
        "materialised / layer-wise": round(times["columns"] / times["fast"], 2),
        "apart": float((ours(*few) - expected).norm() / expected.norm()),
        "samples": samples,
    }


if __name__ == "__main__":
    for network in NETWORKS:
        show(run(network))
