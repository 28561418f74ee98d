"""Delete samples from a SISA ensemble: exact, for the price of the slices that saw them."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from torch import nn

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError, CheckpointError, ConfigError
from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.ranks import barrier, is_first
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.sisa.plan import SlicePlan
from lightning_unlearn.sisa.recipe import SliceRecipe
from lightning_unlearn.sisa.store import FOLDER, Manifest, SliceStore
from lightning_unlearn.sisa.training import plan_slices, train_missing
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.training import quiet
from lightning_unlearn.weights.trained_on import Kept

__all__ = ["RetrainShards"]

log = logging.getLogger(__name__)


class _Request(NamedTuple):
    """What a request is about to do."""

    checkpoint: str
    source: SliceStore
    target: SliceStore
    manifest: Manifest
    plan: SlicePlan


class RetrainShards(UnlearningStage):
    """Trains the shards that hold forgotten samples again, each from the checkpoint before the first of them.

    For a `Sisa` alone (Bourtoule et al., IEEE S&P 2021). The ensemble is then bit for bit what `fit` gives on the retained
    samples with the same seeds, on a CPU with as many threads; another number of ranks or kind of device is refused. Many
    samples are deleted in one go; the plan with its cost is logged before anything runs, and stands in the report. Seeds,
    epochs and batch size are those of the fit.

    All slices go to the run's folder, those that stay as links. Once its checkpoint is written, the earlier ensemble and its
    slices are deleted. A further request starts from the new folder; what was deleted once never comes back.
    """

    view = "none"
    exact = True
    train_mode = False
    brings_files = True

    def __init__(self) -> None:
        super().__init__(max_epochs=0)
        self._place: tuple[Callable[..., Trainer], str | None, str | None] | None = None
        self._request: _Request | None = None

    def place(self, fresh: Callable[..., Trainer], checkpoint: str | None, output: str | None) -> None:
        """See `UnlearningStage.place`."""
        self._place = (fresh, checkpoint, output)
        self._request = None

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """Refuse what cannot run, and show the plan.

        Args:
            classifier: The ensemble.
            data: The data, split.

        Raises:
            ChainError: The model is no `Sisa`, or the stage does not run in `unlearn`.
            CheckpointError: The checkpoint has no slices beside it, or not its own split.
            ConfigError: There is no place for the result, or the slices were trained otherwise.
        """
        if self._request is not None:
            return
        if not isinstance(classifier, Sisa):
            raise ChainError(
                f"RetrainShards deletes samples from a Sisa, and the model is a {type(classifier).__name__}. Train one: fit -c "
                "model/sisa. For any other model, Retrain is exact."
            )
        if self._place is None:
            raise ChainError("RetrainShards runs in `unlearn`, which knows where the slices lie.")
        fresh, checkpoint, output = self._place
        if checkpoint is None or not SliceStore.beside(checkpoint).exists:
            raise CheckpointError(
                f"No slices lie beside the checkpoint {checkpoint}; needed: the folder {FOLDER!r} that fit left there. Give "
                "the checkpoint in its run's folder."
            )
        if output is None:
            raise ConfigError("RetrainShards keeps the new slices on disk, and there is no place for them. Give output.")
        source, target = SliceStore.beside(checkpoint), SliceStore(Path(output, FOLDER))
        source.check_free(target)
        before = source.read()
        known = before.recipe
        with quiet():
            trainer = fresh(measuring=True)
        assert isinstance(trainer, FreshTrainer)  # `place` is called by one
        recipe = SliceRecipe.of(classifier, data, trainer, known.seed, known.epochs, known.batch_size)
        known.check_same(recipe, source.folder.parent)
        gone = {*before.removed, *(data.samples.keys[i] for i in data.part("forget")[1].tolist())}
        index = data.part("retain")[1]
        back = {data.samples.keys[i] for i in index.tolist()} & set(before.removed)
        if back:
            raise CheckpointError(
                f"{len(back)} samples that earlier requests deleted would be trained on again: the split beside {checkpoint} "
                "is missing, or is another one's. Restore its split.json."
            )
        # By what the source lacks: a request that goes on costs what it cost at its start.
        plan = plan_slices(fresh, data, known, source, index)
        self._request = _Request(checkpoint, source, target, Manifest(known, tuple(sorted(gone))), plan)
        log.info("%s", plan.text())

    def before_fit(self, fresh: Callable[..., Trainer], data: UnlearningDataModule) -> None:
        """Take over the slices that stay, and train the others.

        Args:
            fresh: Makes a Trainer.
            data: The data.
        """
        assert self._request is not None  # run_stage comes after check
        assert isinstance(self.classifier, Sisa)
        checkpoint, source, target, manifest, plan = self._request
        # Not earlier: what a run that goes on must have in common with its beginning are the stage's settings alone.
        self.note = plan.text()
        if is_first():
            source.begin(target, manifest, Path(checkpoint).name)
            for slice in (slice for shard in plan.slices for slice in shard if source.has(slice.name)):
                target.take(slice.name, source, Kept.of(data.samples, slice.index, data.dataset))
            self.work.forward += plan.images
            self.work.backward += plan.images
        barrier()
        train_missing(fresh, self.classifier, data, manifest.recipe, plan, target)

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Expected cost of requests by their size, as a share of training all shards."""
        return {} if self._request is None else {"requests": self._request.plan.expected_shares()}
