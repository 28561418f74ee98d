"""What was pruned stays pruned, whatever a later stage does."""

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_unlearn.callbacks.keep_mask import KeepMask
from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.functional.masks import decay

__all__ = ["KeepPruned"]


class KeepPruned(KeepMask):
    """Holds weights at zero where the artifact `pruned` is True; does nothing where no stage has left one.

    The runner of chains gives it to every stage, so that any method becomes prune-then-method with a pruning stage in front.
    Weights are put back to zero before training, after every step (see `KeepMask`), and at the end, for stages that edit
    weights without training.
    Runs on `on_train_start`, `on_train_end` and `on_fit_end`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune what edits of this stage filled again, and follow the optimisers."""
        stage = cast(EditedStage, pl_module)
        if "pruned" in stage.artifacts:
            _prune(stage)
            self.masks = {name: ~pruned for name, pruned in stage.artifacts["pruned"].items()}
            super().on_train_start(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune what edits of a stage without training filled again."""
        stage = cast(EditedStage, pl_module)
        if "pruned" in stage.artifacts:
            _prune(stage)


@torch.no_grad()
def _prune(stage: EditedStage) -> None:
    parameters, pruned = dict(stage.classifier.named_parameters()), stage.artifacts["pruned"]
    decay([parameters[name] for name in pruned], [mask.to(parameters[name].device) for name, mask in pruned.items()], 0.0)
