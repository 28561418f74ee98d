"""Whether influence functions say what retraining a whole MLP without a sample does; on convex models tests say that they do.

By hand: `python tests/performance/influence_of_mlp.py [hidden units]`. Digits, 300 samples, 20 % wrong labels, L2, full batch,
float64. Twenty-five samples are left out in turn, with training going on from the trained weights (what the theory speaks
of) and with training from the same initial weights. Predicted and true: change of the total loss on 500 other samples, and
of the loss of the sample itself. Rank correlations. The activation is smooth and every training ends where its gradient
vanishes: what training on with all samples would still change would be taken for the effect of leaving one out.
"""

import copy
import json
import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lightning_unlearn.functional.curvature import dense_curvature, inverse_curvature_product
from lightning_unlearn.functional.ranks import mid_ranks

L2 = 1e-3
CONVERGED = 1e-9
LEFT_OUT = 25


def objective(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy and the L2 penalty."""
    return cross_entropy(network(x), y) + L2 / 2 * sum(p.square().sum() for p in network.parameters())


def trained(network: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Train a copy until the gradient vanishes: a long way by LBFGS, the rest by Newton's method."""
    network = copy.deepcopy(network)
    parameters = list(network.parameters())
    settings = {"max_iter": 3000, "max_eval": 4000, "tolerance_grad": 1e-6, "tolerance_change": 0.0}
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **settings)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(network, x, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    names = [name for name, _ in network.named_parameters()]
    for _ in range(100):
        loss = objective(network, x, y)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        if float(gradient.norm()) < CONVERGED:
            return network
        matrix = dense_curvature(network, x, y, names, "hessian")
        matrix.diagonal().add_(L2)
        values, vectors = torch.linalg.eigh(matrix)
        step = vectors @ ((vectors.T @ gradient) / values.abs().clamp(min=1e-6))  # never uphill
        before = parameters_to_vector(parameters).detach()
        with torch.no_grad():
            for halving in range(30):
                vector_to_parameters(before - 0.5**halving * step, parameters)
                if objective(network, x, y) <= loss + 1e-15:
                    break
    raise RuntimeError(f"the gradient is still {float(gradient.norm()):.1e} long; needed: below {CONVERGED:g}")


def correlation(a: Tensor, b: Tensor) -> float:
    """Rank correlation."""
    return float(torch.corrcoef(mid_ranks(torch.stack([a, b], 1)).T)[0, 1])


def run(hidden: int, seed: int) -> dict[str, float]:
    """Rank correlations of one network."""
    source = torch.Generator().manual_seed(seed)
    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=source)[:800]
    x, y = images[order] / 16, labels[order].clone()
    wrong = torch.rand(300, generator=source) < 0.2
    y[:300][wrong] = torch.randint(10, (int(wrong.sum()),), generator=source)
    x, others, y, others_y = x[:300], x[300:], y[:300], y[300:]
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10)).double()
    whole = trained(first, x, y)
    values = {name: p.detach() for name, p in whole.named_parameters()}

    def loss(given: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(whole, given, (image[None],)), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(values, x[:LEFT_OUT], y[:LEFT_OUT])
    elsewhere = grad(lambda given: cross_entropy(functional_call(whole, given, (others,)), others_y, reduction="sum"))(values)
    predicted, true = {"others": [], "own": []}, {"warm": [], "cold": [], "warm own": [], "cold own": []}
    with torch.no_grad():
        before = cross_entropy(whole(others), others_y, reduction="sum")
        own_before = cross_entropy(whole(x[:LEFT_OUT]), y[:LEFT_OUT], reduction="none")
    for i in range(LEFT_OUT):
        gradient = {name: value[i] for name, value in each.items()}
        step, _ = inverse_curvature_product(whole, x, y, gradient, L2, "hessian")
        predicted["others"].append(sum((elsewhere[name] * step[name]).sum() for name in step) / len(x))
        predicted["own"].append(sum((gradient[name] * step[name]).sum() for name in step) / len(x))
        rest = torch.arange(len(x)) != i
        for kind, start in (("warm", whole), ("cold", first)):
            again = trained(start, x[rest], y[rest])
            with torch.no_grad():
                true[kind].append(cross_entropy(again(others), others_y, reduction="sum") - before)
                true[f"{kind} own"].append(cross_entropy(again(x[i : i + 1]), y[i : i + 1]) - own_before[i])
    found = {key: torch.stack(list(values)) for key, values in {**predicted, **true}.items()}
    return {
        "hidden": hidden,
        "seed": seed,
        "trained accuracy": float((whole(x).argmax(1) == y).double().mean()),
        "others, from the trained weights": correlation(found["others"], found["warm"]),
        "others, from the initial weights": correlation(found["others"], found["cold"]),
        "the sample itself, from the trained weights": correlation(found["own"], found["warm own"]),
        "the sample itself, from the initial weights": correlation(found["own"], found["cold own"]),
        "others: true over predicted size, from the trained weights": float(found["warm"].std() / found["others"].std()),
        "others: true over predicted size, from the initial weights": float(found["cold"].std() / found["others"].std()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed in range(3):
        print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 8, seed)), flush=True)
