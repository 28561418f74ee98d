"""Prune in rounds of training and rewinding."""

import copy
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.classifier import default_optimizer
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.functional.masks import decay, share_on
from lightning_unlearn.functional.pruning import largest, shares_of_rounds
from lightning_unlearn.schedule import Schedule, build_optimizer, build_schedule
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.pruning import leave_pruned
from lightning_unlearn.stages.retrain import Restart

__all__ = ["IterativePrune"]


class IterativePrune(FineTune):
    """Iterative magnitude pruning with rewinding (IMP: Frankle et al. 2020, ICML; in Jia et al. 2023, NeurIPS).

    Trains a new network on all training data, forgotten samples among them: the sparse original of the paper, for a method
    behind it to unlearn. Each round goes on to the end of the recipe, prunes the smallest |w| of all layers together, and
    rewinds weights, BatchNorm, optimiser and schedule to the end of the epoch `rewind_epoch`; the last one ends with training.
    Nothing is left of the network that the chain began with. Costs rounds + 1 trainings: 15 for 95 % at 20 % a round.

    Artifacts: `pruned`, as of `PruningStage`.

    Args:
        sparsity: Part of the weights of convolutions and hidden linear layers that is pruned; 0.95 in the paper.
        rate: Part of those still there that a round prunes; 0.2 in the paper.
        epochs: Epochs of the recipe, that of the original.
        rewind_epoch: Epochs after which a network is rewound to, fewer than `epochs`; 0: its first weights.
        optimizer: Optimiser of the recipe.
        schedule: Schedule of the recipe.
        batch_size: Batch size of the recipe; None: the DataModule's.
    """

    view = "train"
    steps_each_batch = True
    provides = ("pruned",)

    def __init__(
        self,
        sparsity: float = 0.95,
        rate: float = 0.2,
        epochs: int = 25,
        rewind_epoch: int = 2,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule = "one_cycle",
        batch_size: int | None = None,
    ) -> None:
        if not 0 <= rewind_epoch < epochs:
            raise ChainError(f"IterativePrune: rewind_epoch is {rewind_epoch} of {epochs} epochs; needed: 0 or more, and less.")
        try:
            self.shares = tuple(shares_of_rounds(sparsity, rate))
        except ValueError as error:
            raise ChainError(f"IterativePrune: {error}") from None
        total = epochs + len(self.shares) * (epochs - rewind_epoch)
        super().__init__(max_epochs=total, optimizer=optimizer, schedule=schedule, batch_size=batch_size, cache=False)
        self.epochs = epochs
        self.rewind_epoch = rewind_epoch
        self._masks: dict[str, Tensor] = {}
        self._on: dict[str, float] = {}
        self._early: tuple[dict[str, Tensor], list[dict[str, object]]] | None = None

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`; a network without a weight to prune is refused."""
        super().bind(classifier, artifacts)
        # Of a fit that failed nothing is gone on with.
        self._masks, self._on, self._early = {}, {}, None
        try:
            self._names = layer_weights(classifier, self.selected, head=False)
        except ValueError as error:
            self.release()
            raise ChainError(f"IterativePrune: {error}") from None

    def configure_callbacks(self) -> list[Callback]:
        """The chain: new weights before the first step."""
        return [Restart()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and its schedule over one recipe, to which rewinding goes back."""
        optimizer = build_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad])
        scheduler = build_schedule(optimizer, self.schedule, self.epochs * len(self.data.plan))
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Keep the first weights, where they are what is rewound to."""
        self._keep_early(0)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Put what was pruned back to zero: momentum and weight decay move weights without a gradient."""
        self._prune()

    def on_train_epoch_end(self) -> None:
        """Keep the early state; at the end of a round prune and rewind."""
        done = self.current_epoch + 1
        self._keep_early(done)
        round_, into = divmod(done - self.rewind_epoch, self.epochs - self.rewind_epoch)
        if into == 0 and 1 <= round_ <= len(self.shares):
            weights = self._weights()
            # What was pruned stays pruned, also beside weights that training brought to zero.
            there = self._masks or {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
            scores = {name: torch.where(there[name], w.abs(), -1.0) for name, w in weights.items()}
            self._masks = largest(scores, self.shares[round_ - 1])
            self._rewind()
            self._prune()

    def on_train_end(self) -> None:
        """Leave word of what was pruned, and let the early state go."""
        leave_pruned(self.artifacts, self._masks)
        self._on = {name: float(share_on(mask)) for name, mask in self._masks.items()}
        self._masks, self._early = {}, None

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Share of the weights that stay, by parameter; nothing before a fit has ended."""
        return {"weights_kept": self._on} if self._on else {}

    def _weights(self) -> dict[str, Tensor]:
        parameters = dict(self.classifier.named_parameters())
        return {name: parameters[name].detach() for name in self._names}

    def _prune(self) -> None:
        if self._masks:
            decay(list(self._weights().values()), [~mask for mask in self._masks.values()], 0.0)

    def _stateful(self) -> list[torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler]:
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return [*self.trainer.optimizers, *schedulers]

    def _keep_early(self, epochs: int) -> None:
        if epochs == self.rewind_epoch and self._early is None:
            state = {name: value.detach().clone() for name, value in self.classifier.state_dict().items()}
            self._early = state, [copy.deepcopy(each.state_dict()) for each in self._stateful()]

    def _rewind(self) -> None:
        assert self._early is not None
        state, others = self._early
        self.classifier.load_state_dict(state)
        for each, kept in zip(self._stateful(), others, strict=True):
            each.load_state_dict(copy.deepcopy(kept))
