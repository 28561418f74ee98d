"""B6 and B7: mask learning on the last stage with cached features, and what the mask itself costs.

Run by hand: `python tests/performance/bench_masks.py`. ResNet-18's layout at a quarter of its width, images of 32x32,
256 samples, batches of 64, ten epochs; the cache's own pass is counted.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import medians, show
from torch import Tensor, nn

from lightning_unlearn.functional.anatomy import last_stage, weight_layers
from lightning_unlearn.functional.cut import cut
from lightning_unlearn.functional.masks import l1_of_scores, masked_call, share_on
from lightning_unlearn.networks import ResNet

BUDGET = {"B6 over full steps": 3.5, "B6 over uncached": 1.7, "B7 overhead": 0.12}
SAMPLES, BATCH, EPOCHS = 256, 64, 10
THRESHOLD, START, L1, RATE = 5e-3, 1e-2, 1e-7, 1e-3


def batches(epochs: int) -> list[Tensor]:
    """Indices of all steps: shuffled, the same for every variant."""
    generator = torch.Generator().manual_seed(0)
    return [part for _ in range(epochs) for part in torch.randperm(SAMPLES, generator=generator).split(BATCH)]


def learn_masks(
    module: nn.Module, names: list[str], inputs: Tensor, targets: Tensor, epochs: int = EPOCHS
) -> dict[str, Tensor]:
    """The scores after mask learning of a module on its inputs: cross-entropy plus L1, Adam, weights frozen."""
    own = dict(module.named_parameters())
    scores = {name: torch.full_like(own[name], START).requires_grad_() for name in names}
    optimizer = torch.optim.Adam(scores.values(), RATE)
    for index in batches(epochs):
        loss = F.cross_entropy(masked_call(module, scores, THRESHOLD, inputs[index]), targets[index])
        optimizer.zero_grad()
        (loss + L1 * l1_of_scores(scores.values())).backward()
        optimizer.step()
    return {name: score.detach() for name, score in scores.items()}


def train(module: nn.Module, names: list[str], inputs: Tensor, targets: Tensor, epochs: int = EPOCHS) -> None:
    """Plain steps on copies of the named weights, with the same optimiser."""
    own = dict(module.named_parameters())
    before = {name: own[name].detach().clone() for name in names}
    for name in names:
        own[name].requires_grad_(True)
    optimizer = torch.optim.Adam([own[name] for name in names], RATE)
    for index in batches(epochs):
        loss = F.cross_entropy(module(inputs[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for name in names:
            own[name].requires_grad_(False).copy_(before[name])


def run(repeats: int = 5) -> dict[str, object]:
    """Ratios (slow over fast) for B6, the relative overhead of B7, and whether cached scores are the uncached ones."""
    torch.manual_seed(0)
    network = ResNet(10, blocks=(2, 2, 2, 2), width=16).eval().requires_grad_(False)
    x, y = torch.randn(SAMPLES, 3, 32, 32), torch.randint(10, (SAMPLES,))
    stage = last_stage(network)
    names = [f"{name}.weight" for name in weight_layers(network) if name.startswith(tuple(stage))]
    halves = cut(network, names, x[:1])
    if halves is None:
        raise RuntimeError("The network cannot be cut before its last stage.")

    def features() -> Tensor:
        with torch.no_grad():
            return torch.cat([halves.prefix(part) for part in x.split(BATCH)])

    def cached() -> dict[str, Tensor]:
        return learn_masks(halves.tail, names, features(), y)

    kept = features()
    variants: dict[str, Callable[[], object]] = {
        "cached": cached,
        "uncached": lambda: learn_masks(network, names, x, y),
        "full": lambda: train(network, [name for name, _ in network.named_parameters()], x, y),
        "masked": lambda: learn_masks(halves.tail, names, kept, y, 3),
        "plain": lambda: train(halves.tail, names, kept, y, 3),
    }
    times = medians(variants, repeats)
    scores, uncached = cached(), learn_masks(network, names, x, y)
    masks = [score > THRESHOLD for score in scores.values()]
    return {
        "B6 over full steps": round(times["full"] / times["cached"], 2),
        "B6 over uncached": round(times["uncached"] / times["cached"], 2),
        "B6 identical scores": all(torch.equal(scores[name], uncached[name]) for name in names),
        "B6 share of ones": round(float(share_on(masks)), 3),
        "B6 share of the tail": round(halves.share, 3),
        "B7 overhead": round(times["masked"] / times["plain"] - 1, 3),
    }


if __name__ == "__main__":
    show(run())
