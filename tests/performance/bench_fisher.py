"""B3 and B4: the Fisher diagonal by hooks against batches of one, and against the ways of public code.

Run by hand: `python tests/performance/bench_fisher.py`. Work grows with the samples alone; ratios do not depend on it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import medians, show
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_unlearn.functional.fisher import diagonal_fisher
from lightning_unlearn.networks import MLP, ResNet, SmallCNN

BATCH = 128  # the default of the data module
BUDGET = {"B3 mlp": 15, "B3 cnn": 3, "B3 resnet8": 1.7, "B4 empirical": 30, "B4 model": 30}
AGREEMENT = 1e-5


def ours(network: nn.Module, x: Tensor, y: Tensor, kind: str) -> dict[str, Tensor]:
    """The package's function on batches of 128."""
    return diagonal_fisher(network, zip(x.split(BATCH), y.split(BATCH), strict=True), kind)[0]


def one_by_one(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The leanest loop over samples: no loader, gradients straight from autograd, squares added in place."""
    network.eval()
    own = list(network.parameters())
    sums = [torch.zeros_like(p) for p in own]
    for n in range(len(x)):
        grads = torch.autograd.grad(F.cross_entropy(network(x[n : n + 1]), y[n : n + 1]), own)
        for total, grad in zip(sums, grads, strict=True):
            total.addcmul_(grad, grad)
    return dict(zip((name for name, _ in network.named_parameters()), sums, strict=True))


def public_empirical(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """As in public code: one graph for a batch, then a backward pass through all of it for each of its samples."""
    network.eval()
    own = list(network.parameters())
    sums = [torch.zeros_like(p) for p in own]
    for images, labels in DataLoader(TensorDataset(x, y), batch_size=BATCH):
        log_p = torch.log_softmax(network(images), dim=-1)
        for n in range(len(images)):
            grads = torch.autograd.grad(log_p[n][labels[n]], own, retain_graph=True)
            sums = [total + grad**2 for total, grad in zip(sums, grads, strict=True)]
    return dict(zip((name for name, _ in network.named_parameters()), sums, strict=True))


def public_model(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """As in public code: a loader of single samples, and for each class `zero_grad`, `backward` and a weighted square."""
    network.eval()
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for images, _ in DataLoader(TensorDataset(x, y), batch_size=1):
        logits = network(images)
        p = F.softmax(logits, dim=-1).detach()
        for label in range(logits.shape[1]):
            network.zero_grad()
            F.cross_entropy(logits, torch.full((1,), label)).backward(retain_graph=True)
            for name, parameter in network.named_parameters():
                sums[name] += p[0, label] * parameter.grad.pow(2)
    network.zero_grad()
    return sums


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest relative difference of a tensor, in norm."""
    return max(float((a[name] - b[name]).norm() / b[name].norm().clamp_min(1e-30)) for name in b)


def run(samples: int = 1024, repeats: int = 5) -> dict[str, object]:
    """Ratios (slow over fast) and relative differences for B3 and B4."""
    torch.manual_seed(0)
    networks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "mlp": (MLP(10, image_size=28, hidden=(256, 256)), (1, 28, 28)),
        "cnn": (SmallCNN(10), (1, 8, 8)),
        "resnet8": (ResNet(10, in_chans=3), (3, 32, 32)),
    }
    result: dict[str, object] = {}
    for name, (network, shape) in networks.items():
        x, y = torch.randn(samples, *shape), torch.randint(10, (samples,))
        variants: dict[str, Callable[[], dict[str, Tensor]]] = {
            "ours": lambda n=network, x=x, y=y: ours(n, x, y, "empirical"),
            "loop": lambda n=network, x=x, y=y: one_by_one(n, x, y),
        }
        times = medians(variants, repeats)
        result[f"B3 {name}"] = round(times["loop"] / times["ours"], 2)
        result[f"B3 {name} difference"] = difference(variants["ours"](), variants["loop"]())
    network, shape = networks["cnn"]
    x, y = torch.randn(samples, *shape), torch.randint(10, (samples,))
    for kind, public in (("empirical", public_empirical), ("model", public_model)):
        variants = {
            "ours": lambda k=kind: ours(network, x, y, k),
            "public": lambda p=public: p(network, x, y),
        }
        times = medians(variants, repeats)
        result[f"B4 {kind}"] = round(times["public"] / times["ours"], 2)
        result[f"B4 {kind} difference"] = difference(variants["ours"](), variants["public"]())
    result["met"] = all(result[key] >= limit for key, limit in BUDGET.items()) and all(
        value < AGREEMENT for key, value in result.items() if key.endswith("difference")
    )
    return result


if __name__ == "__main__":
    show(run())
