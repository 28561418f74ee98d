"""The shared DataModule: one training set, split into retained, forgotten and unseen samples."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.loaders import BatchMaker, EvaluationLoader, ViewLoader
from lightning_unlearn.data.many import ManyLoader
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.split_data import Part, SplitData
from lightning_unlearn.data.trigger import Trigger
from lightning_unlearn.data.unseen import Unseen
from lightning_unlearn.data.views import TWO_PARTS, Plan, View
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.random import run_seed, stage_seed

__all__ = ["Serving", "UnlearningDataModule"]

# Sets of images that are read one at a time are held in memory up to this size (bytes of uint8 pixels).
RESIDENT_LIMIT = 2 * 2**30


@dataclass(frozen=True)
class Serving:
    """What the training loader serves at the moment; a chain of stages sets it before each fit.

    Attributes:
        view: Part of the data.
        batch_size: Samples of a batch over all ranks.
        forget_batch_size: The same for the forgotten part of two-part views.
        salt: What the order is drawn for.
        images: Whether batches carry images.
        seeds: Seeds of the models that are trained at once, each with its own order: a batch is then one of batches (K, B).
            Empty: one model.
        only: Of the view's samples, those that are served, (n,), int64; None: all.
    """

    view: View
    batch_size: int
    forget_batch_size: int
    salt: str = ""
    images: bool = True
    seeds: tuple[int, ...] = ()
    only: Tensor | None = field(default=None, compare=False, repr=False)


class UnlearningDataModule(SplitData):
    """Splits a training set into what is forgotten, what is retained and what was never seen, and serves views of it.

    Args:
        dataset: The data set.
        forget: Which samples to forget; None where nothing is forgotten yet (training an original).
        view: What the training loader serves: `train` (forget and retain), `retain`, `forget`, `both` (an epoch over retain
            with forget cycled beside it), `both_equal` (the same with a retained part as large as the forgotten one),
            `unseen`, `forget_then_retain` (all forgotten batches, then all retained ones), `pairs_then_retain` (the same
            with a retained batch beside each forgotten one), `none`.
        unseen: Samples that the original never trains on: a share of the training set (below 1), a count, another data set, or
            `half_of_test`: the test set is cut into two disjoint halves, one of which serves as unseen. None: 10 % are carved
            out for training; for a checkpoint whose split was saved, that split holds; for any other it is `half_of_test`.
        batch_size: Samples of a batch, over all ranks.
        forget_batch_size: Samples of a forget batch in the two-part views, over all ranks; None: half of `batch_size`.
        eval_batch_size: Samples of an evaluation batch on one rank.
        augmentation: What is done to training images; None: nothing.
        label_noise: Wrong labels to add to the training set (also to its unseen part), so that memorisation can be studied.
        num_workers: Worker processes where images are not resident; None: one less than the cores, 4 at most.
        resident: Whether the whole set is held on the device as uint8; None: where it takes at most 2 GiB.
        split_seed: Seed of the unseen part.
        forget_seed: Seed of the forget rule's draw.
        seed: Seed of batch order and augmentation; None: the seed given to `seed_everything`, or 0. Each stage of a chain makes
            another one of it.
        trigger: A backdoor to plant in the training set: a patch on some images, whose label becomes the attacker's. The
            unseen part and the test set stay clean; reports then state how often the attack succeeds.
    """

    def __init__(
        self,
        dataset: VisionData,
        forget: ForgetRule | None = None,
        view: View = "train",
        unseen: Unseen = None,
        batch_size: int = 128,
        forget_batch_size: int | None = None,
        eval_batch_size: int = 512,
        augmentation: Augmentation | None = None,
        label_noise: LabelNoise | None = None,
        num_workers: int | None = None,
        resident: bool | None = None,
        split_seed: int = 0,
        forget_seed: int = 0,
        seed: int | None = None,
        trigger: Trigger | None = None,
    ) -> None:
        super().__init__(dataset, forget, unseen, label_noise, split_seed, forget_seed, trigger)
        for name, size in (
            ("batch_size", batch_size),
            ("forget_batch_size", forget_batch_size),
            ("eval_batch_size", eval_batch_size),
        ):
            if size is not None and size < 1:
                raise ConfigError(f"{name} is {size}; needed: at least 1.")
        if num_workers is not None and num_workers < 0:
            raise ConfigError(f"num_workers is {num_workers}; needed: 0 (none) or more.")
        self.eval_batch_size = eval_batch_size
        self.augmentation = augmentation
        self.num_workers = min(4, (os.cpu_count() or 1) - 1) if num_workers is None else num_workers
        self.resident = resident
        self.seed = seed
        self.serving = Serving(view, batch_size, forget_batch_size or max(1, batch_size // 2))
        self._makers: dict[tuple[str, torch.device], BatchMaker] = {}

    @property
    def batch_size(self) -> int:
        """Samples of a batch over all ranks."""
        return self.serving.batch_size

    def serve(
        self,
        view: View,
        batch_size: int | None = None,
        forget_batch_size: int | None = None,
        salt: str = "",
        images: bool = True,
        seeds: Sequence[int] = (),
        only: Tensor | None = None,
    ) -> Serving:
        """Set what the training loader serves.

        Args:
            view: Part of the data.
            batch_size: Samples of a batch; None: as before.
            forget_batch_size: Samples of a forget batch; None: as before.
            salt: What the order is drawn for.
            images: Whether batches carry images.
            seeds: Seeds of models that are trained at once; see `Serving`.
            only: Of the view's samples, those that are served, (n,), int64; None: all.

        Returns:
            What was served before, to be put back into `serving`.
        """
        self._check_view(view)
        before = self.serving
        sizes = (batch_size or before.batch_size, forget_batch_size or before.forget_batch_size)
        self.serving = Serving(view, *sizes, salt, images, tuple(seeds), only)
        return before

    def _check_view(self, view: View) -> None:
        if view in ("forget", *TWO_PARTS) and len(self.parts.forget) == 0:
            raise DataError(
                f"The view {view!r} needs samples to forget, and there is no forget rule. Give one: "
                "--data.forget RandomFraction --data.forget.fraction 0.04, or ListedSamples with a file."
            )
        if view == "unseen" and len(self.part("unseen")[1]) == 0:
            raise DataError(f"The view 'unseen' needs unseen samples, and there are none. {self.unseen_remedy}")

    def _check_images(self) -> None:
        if not self.dataset.has_images:
            raise DataError(
                f"{type(self.dataset).__name__} has no images to read. Needed: a method that works from the checkpoint alone, "
                "such as -c method/mnemonic, or the data."
            )

    def skip_images(self) -> None:
        """Serve indices and labels only from now on: the stage works on features that it holds."""
        self.serving = replace(self.serving, images=False)

    @property
    def plan(self) -> Plan:
        """The steps of an epoch of the served view on this rank."""
        samples, retain = self.part("unseen" if self.serving.view == "unseen" else "retain")
        forget, only = self.parts.forget, self.serving.only
        if only is not None:
            forget, retain = forget[torch.isin(forget, only)], retain[torch.isin(retain, only)]
        return Plan(
            self.serving.view,
            forget,
            retain,
            samples.hashes,
            self.serving.batch_size,
            self.serving.forget_batch_size,
            self._order_seed,
            self.serving.salt,
            *self.ranks,
        )

    def train_dataloader(self) -> ViewLoader | ManyLoader:
        """Batches of the served view.

        Returns:
            A loader that knows its rank and goes on where a resumed run stopped.
        """
        self._check_view(self.serving.view)
        if self.serving.view != "none":
            self._check_images()
        samples, _ = self.part("unseen" if self.serving.view == "unseen" else "retain")
        loader = ViewLoader(self.plan, self._maker(samples), self._position, lambda: self.serving.images)
        if not self.serving.seeds:
            return loader
        return ManyLoader(loader, [stage_seed(seed if self.seed is None else self.seed) for seed in self.serving.seeds])

    def val_dataloader(self) -> list[EvaluationLoader]:
        """Unseen samples: what is watched during training. Never the test set."""
        count, ranks = len(self.part("unseen")[1]), self.ranks[1]
        if 0 < count < ranks:
            # Lightning refuses a loader that is empty on one rank alone.
            raise DataError(
                f"There are {count} unseen samples for {ranks} ranks; needed: at least one per rank, or none. "
                f"{self.unseen_remedy} Or use fewer devices."
            )
        return [self.evaluation_loader("unseen")] if count else []

    def test_dataloader(self) -> EvaluationLoader:
        """Test samples."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> list[EvaluationLoader]:
        """Retained, forgotten, unseen and test samples, in this order; parts without samples are left out."""
        return [self.evaluation_loader(name) for name in self.present]

    def evaluation_loader(
        self, name: Part, index: Tensor | None = None, batch_size: int | None = None, epoch: int | None = None
    ) -> EvaluationLoader:
        """Every sample of a part, or some of them, once over all ranks.

        Args:
            name: `retain`, `forget`, `train` (both of them), `unseen` or `test`.
            index: Which of its samples, (N,), sorted, int64: what `random_part` gives; None: all.
            batch_size: Samples of a batch on one rank; None: `eval_batch_size`.
            epoch: The pass of a training as in which images are augmented; None: they are not.

        Returns:
            The loader of this rank's share.
        """
        self._check_images()
        samples, every = self.part(name)
        chosen = every if index is None else index
        return EvaluationLoader(chosen, self._maker(samples), batch_size or self.eval_batch_size, *self.ranks, epoch)

    def _maker(self, samples: Samples) -> BatchMaker:
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        key = ("train" if samples is self.samples else str(id(samples)), device)
        held, statistics = self._makers.get(key), (self.dataset.mean, self.dataset.std)
        # Those of a checkpoint may have come since.
        if held is None or held.samples is not samples or (held.mean, held.std) != statistics:
            self._makers[key] = BatchMaker(
                samples,
                *statistics,
                self.augmentation,
                self._order_seed,
                device,
                self.num_workers,
                self._is_resident(samples),
            )
        # One maker, and so one copy of the images, serves all seeds.
        self._makers[key].seed = self._order_seed
        return self._makers[key]

    def _is_resident(self, samples: Samples) -> bool:
        if self.resident is not None:
            return self.resident
        return len(samples) * samples.images[0].numel() <= RESIDENT_LIMIT

    @property
    def _order_seed(self) -> int:
        return run_seed() if self.seed is None else stage_seed(self.seed)

    @property
    def ranks(self) -> tuple[int, int]:
        """This rank and the number of all: of the Trainer that served last, one alone before there was any."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _position(self) -> tuple[int, int]:
        # A Trainer that has ended its fit still counts its last epoch.
        if self.trainer is None or not self.trainer.training:
            return 0, 0
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def __getstate__(self) -> dict[str, object]:
        # Copies of a DataModule (Lightning makes some) need not carry the images a second time.
        return {**self.__dict__, "_makers": {}}
