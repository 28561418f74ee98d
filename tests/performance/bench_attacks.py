"""B9: the threshold attack by sort against the published SVC, 4,000 members and 4,000 non-members."""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_unlearn.attacks.svc import svc_attack
from lightning_unlearn.attacks.threshold import threshold_attack

BUDGET = 1000.0
ALLOWED_LOSS = 0.005
SIZE = 4000


def confidences(generator: torch.Generator, overfit: float) -> Tensor:
    """Confidences as networks give them: a Gaussian margin, shifted by `overfit` on training samples."""
    margins = 3 + overfit + 3 * torch.randn(SIZE, generator=generator, dtype=torch.float64)
    return margins.sigmoid()


def by_threshold(members: Tensor, non_members: Tensor, scores: Tensor) -> Tensor:
    return threshold_attack(members, non_members).is_member(scores)


def seconds(attack: Callable[[Tensor, Tensor, Tensor], Tensor], *inputs: Tensor, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        attack(*inputs)
    return (time.process_time() - start) / repeats


def balanced(member: Tensor) -> float:
    """Balanced accuracy on equally many members (first) and non-members."""
    half = len(member) // 2
    return (float(member[:half].double().mean()) + 1 - float(member[half:].double().mean())) / 2


def run(rounds: int = 5) -> dict[str, object]:
    """Medians of interleaved runs on one thread; accuracy on samples that neither attack was trained on."""
    torch.set_num_threads(1)
    svc_times, sort_times, svc_scores, sort_scores = [], [], [], []
    for seed in range(rounds + 1):
        generator = torch.Generator().manual_seed(seed)
        members, non_members = confidences(generator, 1.0), confidences(generator, 0.0)
        fresh = torch.cat([confidences(generator, 1.0), confidences(generator, 0.0)])
        inputs = (members, non_members, fresh)
        if seed == 0:  # warm-up: the import of scikit-learn among others
            by_threshold(*inputs)
            svc_attack(*(part[:200] for part in inputs))
            continue
        svc_times.append(seconds(svc_attack, *inputs, repeats=1))
        sort_times.append(seconds(by_threshold, *inputs, repeats=50))
        svc_scores.append(balanced(svc_attack(*inputs)))
        sort_scores.append(balanced(by_threshold(*inputs)))
    ratio = statistics.median(svc_times) / statistics.median(sort_times)
    svc, sort = statistics.mean(svc_scores), statistics.mean(sort_scores)
    return {
        "name": "B9",
        "what": "threshold attack by sort vs SVC-RBF, 4k + 4k",
        "ratio": round(ratio, 1),
        "budget": BUDGET,
        "svc_s": statistics.median(svc_times),
        "sort_s": statistics.median(sort_times),
        "svc_accuracy": svc,
        "sort_accuracy": sort,
        "passed": ratio >= BUDGET and sort >= svc - ALLOWED_LOSS,
    }


if __name__ == "__main__":
    print(json.dumps(run()))
