"""How many steps on the forgotten samples bring them back: a run of its own."""

import copy
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_unlearn.chain.run import TrainerFactory, run_chain
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["relearn_curve"]


def relearn_curve(
    fresh: TrainerFactory, model: nn.Module, data: UnlearningDataModule, target: float, max_steps: int
) -> list[float]:
    """Forget accuracy while a copy of the model is fine-tuned on the forgotten samples alone.

    A model that still knows them needs fewer steps than one that never saw them (relearn time, Golatkar et al. 2020, CVPR;
    `metrics.relearn.relearn_time` reads it from the curve). SGD at learning rate 0.01, momentum 0.9, with the data's batch
    size, in eval mode: BatchNorm statistics of the forgotten samples alone would say nothing of the model.

    Args:
        fresh: Makes a Trainer.
        model: Gives logits of images; stays as it is.
        data: The shared data.
        target: Accuracy at which the run ends, in 0 ... 1.
        max_steps: Steps after which it ends all the same.

    Returns:
        Accuracies in 0 ... 1 after 0, 1, 2 ... steps: up to the first that reaches the target, or max_steps + 1 of them.
    """
    first = collect_outputs(fresh, model, data, ["forget"])["forget"].accuracy
    stage = _Relearn(target, max_steps)
    if first < target:
        # A copy: what is measured must not change what is kept.
        run_chain(partial(fresh, measuring=True), copy.deepcopy(model), data, [stage])
    return [first, *stage.curve]


def _optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    return SGD(params, lr=0.01, momentum=0.9)


class _Relearn(UnlearningStage):
    """Fine-tuning on the forgotten samples that ends when their accuracy is back."""

    view = "forget"
    train_mode = False

    def __init__(self, target: float, max_steps: int) -> None:
        super().__init__(max_steps=max_steps, optimizer=_optimizer)
        self.target = target
        self.curve: list[float] = []

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """As many epochs as the steps need."""
        assert self.max_steps is not None  # the constructor sets it
        return -1, self.max_steps

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        assert isinstance(batch, Batch)
        return F.cross_entropy(logits, batch.target)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        right = torch.zeros((), device=self.device)
        count = len(self.data.part("forget")[1])
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for part in self.data.evaluation_loader("forget"):
                part = self.trainer.precision_plugin.convert_input(part)
                right += (self.classifier(part.input).argmax(1) == part.target).sum()
        self.curve.append(round(float(sum_over_ranks(right, self.trainer))) / count)
        if self.curve[-1] >= self.target:
            self.trainer.should_stop = True
