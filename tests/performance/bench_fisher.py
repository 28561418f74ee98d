"""B3 and B4: the Fisher diagonal by hooks against batches of one, and against the ways of public code.

Run by hand: `python tests/performance/bench_fisher.py`. Work grows with the samples alone; ratios do not depend on it.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from timing import medians, show
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_unlearn.functional.fisher import diagonal_fisher
from lightning_unlearn.networks import MLP, ResNet, SmallCNN

BATCH = 128  # the default of the data module
BUDGET = {"B3 mlp": 15, "B3 cnn": 3, "B3 resnet8": 1.7, "B4": 30}  # and apart by 1e-5 at most

Function = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


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


def run(repeats: int = 5) -> dict[str, object]:
    """Ratios (slow over fast) for B3 and B4, and how far the results are apart.

    Agreement is taken in float64: in float32 a pre-activation within rounding of zero may fall on either side of a
    ReLU, with each batch size another, and a network has 10^5 of them for each sample.
    """
    torch.manual_seed(0)
    networks: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
        "mlp": (MLP(10, image_size=28, hidden=(128,)), (1, 28, 28), 2000),
        "cnn": (SmallCNN(10, image_size=28), (1, 28, 28), 1024),
        "resnet8": (ResNet(10, in_chans=3), (3, 32, 32), 512),
    }
    result: dict[str, object] = {}
    for name, (network, shape, samples) in networks.items():
        x, y = torch.randn(samples, *shape), torch.randint(10, (samples,))
        result |= compare(f"B3 {name}", network, x, y, partial(ours, kind="empirical"), one_by_one, repeats)
    for name, size in (("cnn", 28), ("digits cnn", 8)):
        network, x, y = (
            SmallCNN(10, image_size=size),
            torch.randn(512, 1, size, size),
            torch.randint(10, (512,)),
        )
        for kind, public in (("empirical", public_empirical), ("model", public_model)):
            result |= compare(f"B4 {name} {kind}", network, x, y, partial(ours, kind=kind), public, repeats)
    return result


def compare(
    key: str, network: nn.Module, x: Tensor, y: Tensor, fast: Function, slow: Function, repeats: int
) -> dict[str, object]:
    """Ratio of times, and the difference of the results in float64 on 64 samples."""
    times = medians({"fast": lambda: fast(network, x, y), "slow": lambda: slow(network, x, y)}, repeats)
    network, x, y = network.double(), x[:64].double(), y[:64]
    apart = difference(fast(network, x, y), slow(network, x, y))
    network.float()
    return {key: round(times["slow"] / times["fast"], 2), f"{key} apart": apart}


if __name__ == "__main__":
    show(run())
