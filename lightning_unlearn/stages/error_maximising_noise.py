"""Learn images on which the network is as wrong as can be about the forgotten classes."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.modes import differentiable_in
from lightning_unlearn.random import generator
from lightning_unlearn.schedule import build_optimizer
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["ErrorMaximisingNoise", "noise_objective", "noise_optimizer"]


def noise_optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    """Adam with learning rate 0.1, as published."""
    return Adam(params, lr=0.1)


def noise_objective(logits: Tensor, noise: Tensor, label: int, penalty: float) -> Tensor:
    """What the noise minimises: minus its mean cross-entropy, plus lambda times its mean squared norm.

    Args:
        logits: Of the noise, (B, K).
        noise: (B, C, H, W).
        label: The class that is to be forgotten.
        penalty: lambda.

    Returns:
        A scalar.
    """
    labels = torch.full((len(noise),), label, dtype=torch.int64, device=noise.device)
    return penalty * noise.square().flatten(1).sum(1).mean() - F.cross_entropy(logits, labels)


class ErrorMaximisingNoise(UnlearningStage):
    """The first step of UNSIR (Tarun et al. 2021, "Fast yet effective machine unlearning"): noise for each forgotten class.

    Images that start as normal noise maximise the loss of the class with frozen weights, in eval mode, so that BatchNorm
    answers as it does in use. Reads no data.

    Artifacts: `noise`, by label, (B, C, H, W) each, in the space of the network's input.

    Args:
        count: Images per class; 256 in the public code, where it is the batch size.
        steps: Steps; 40 in the public code, 5 epochs of 8.
        penalty: lambda of the squared norm; 0.1 in the paper.
        noise_optimizer: Makes the optimiser of the images; Adam in the public code, with a learning rate of 0.1.
    """

    view = "none"
    provides = ("noise",)
    train_mode = False
    only_looks = True
    whole_classes = True

    def __init__(
        self,
        count: int = 256,
        steps: int = 40,
        penalty: float = 0.1,
        noise_optimizer: OptimizerCallable = noise_optimizer,
    ) -> None:
        super().__init__(max_epochs=0)
        if count < 1 or steps < 1 or penalty < 0:
            raise ChainError(
                f"ErrorMaximisingNoise: count is {count}, steps {steps}, penalty {penalty}; needed: at least 1 image and 1 "
                "step, and a penalty of 0 or more."
            )
        self.count = count
        self.steps = steps
        self.penalty = penalty
        self.noise_optimizer = noise_optimizer

    def on_fit_start(self) -> None:
        """Learn the noise of every forgotten class; alike on every rank."""
        dtype = next(self.classifier.parameters()).dtype
        shape = self.data.example(1).shape[1:]
        learnt = {}
        with differentiable_in(self.classifier, []):
            for label in self.data.forgotten_classes:
                start = torch.randn(self.count, *shape, generator=generator(f"noise of class {label}"))
                noise = nn.Parameter(start.to(self.device, dtype))
                optimizer = build_optimizer(self.noise_optimizer, [noise])
                for _ in range(self.steps):
                    loss = noise_objective(self.classifier(noise), noise, label, self.penalty)
                    [noise.grad] = torch.autograd.grad(loss, [noise])
                    optimizer.step()
                learnt[str(label)] = noise.detach()
        self.artifacts["noise"] = learnt
