"""Originals and references that go through a chain of stages after their training, such as pruning."""

import json
import logging
from dataclasses import dataclass

from lightning.pytorch import LightningModule, seed_everything

from lightning_unlearn import __version__
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.methods import Method, load_method
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.data.whole import whole, without_forgotten
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.ranks import barrier, first_says, is_first, lock_on_first
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.keep_zeros import KeepZeros

__all__ = ["Preparation"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What originals and references go through before anything is forgotten: `[MagnitudePrune, FineTune]` makes them sparse.

    An original goes through it on all training data, a reference on what it was trained on, so it never meets a forgotten
    sample: it is pruned anew and not by the original's mask.

    Attributes:
        chain: The stages.
    """

    chain: Method

    @classmethod
    def named(cls, name: str) -> "Preparation":
        """A preparation by the name of a shipped file of `configs/prepare`, or by a path.

        Args:
            name: `prune_95`, or a path.

        Returns:
            The preparation, its chain checked.

        Raises:
            ConfigError: A stage of it is not one of those that may come before forgetting.
        """
        chain = load_method(name, "prepare")
        stages = chain()
        check_chain(stages)
        for stage in stages:
            if not stage.prepares or stage.trains_on_unseen or stage.compares_with_unseen:
                raise ConfigError(
                    f"prepare: {type(stage).__name__} of {name} is for forgetting, or looks at unseen samples, and originals "
                    "and references are prepared before anything is forgotten. Needed: stages such as MagnitudePrune, FineTune."
                )
        return cls(chain)

    def kept(self) -> list[UnlearningStage]:
        """What comes in front of each method: pruned weights stay zero.

        Returns:
            At most one stage.
        """
        return [KeepZeros()] if any("pruned" in stage.provides for stage in self.chain()) else []

    def prepared(self, bank: Bank, recipe: Recipe, data: UnlearningDataModule, view: View, seed: int) -> LightningModule:
        """A trained and prepared model: from the bank, or made now and kept beside the trained one.

        Args:
            bank: Where it is found, or kept.
            recipe: How it is trained.
            data: The data, with their forget rule.
            view: `train` for an original, `retain` for a reference.
            seed: Seed of training and preparation.

        Returns:
            The model on the CPU, in eval mode.
        """
        model = recipe.build(seed)
        trained = json.loads(bank.content(recipe, model, data, view, seed))
        # The version of the stages counts, too; those of the training are Lightning's and torch's own.
        how = {"prepared": self.chain.identity, "version": __version__}
        content = json.dumps({**trained, **how}, sort_keys=True)
        entry = bank.entry(content)
        with lock_on_first(entry, wait=True):
            state = bank.verified(entry, content)
            if first_says(state is None):
                model = bank.trained(recipe, data, view, seed)
                log.info("preparing it: %s", self.chain.path.stem)
                seed_everything(seed, verbose=False)
                # What the call's own Trainer has besides the recipe (limits, callbacks) is no part of what is kept.
                fresh = FreshTrainer(
                    **recipe.trainer, logger=False, enable_progress_bar=False, enable_checkpointing=False
                ).fresh
                run_chain(fresh, model, whole(data) if view == "train" else without_forgotten(data), self.chain())
                if is_first():
                    bank.record(data, view)
                    bank.keep(entry, content, model)
                barrier()
            else:
                bank.load(entry, state, model, recipe)
        return model.eval()
