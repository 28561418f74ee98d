"""Estimate what a model that never saw the forgotten samples would say about them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import calibrated, strike_classes
from lightning_unlearn.imitation import Copies, Estimator, Neighbours, OwnAnswer
from lightning_unlearn.imitation.checks import check_calibration, check_estimators, check_samples
from lightning_unlearn.imitation.guesses import Guesses
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["EstimateUnseen"]


class EstimateUnseen(UnlearningStage):
    """The first step of imitating the unseen (this project's own method): targets for the forgotten samples.

    Estimators give a first guess, from the network (which is not changed) or its surrogate; their mixture is chosen on unseen
    samples, for which the true answer is known: it is the network's own. Then the guesses are calibrated: a forgotten sample
    is ranked, by the log-odds of its label, among *retained* samples, of which the estimators remember as much, and gets the
    log-odds that an unseen sample of that rank has; the other classes are sharpened towards answers to unseen samples. Where
    training images are augmented, so are these unseen ones, since it is on augmented images that targets are taught.

    A model that never saw a class gives it no probability. So where none of its samples is retained it is struck from all
    targets; those of its own samples are the mean of other guesses without it, and are not calibrated.

    Artifacts: `targets`: `index` (F,), `probabilities` (F, K), float64, `class_gone` (F,), bool: which are of such a class.

    Args:
        estimators: What guesses; None: `Copies` and `Neighbours` with their defaults.
        weights: Weight of each estimator; None: chosen on unseen samples; see `choose_mixture`.
        bank_samples: Retained samples that estimators compare with, a random part; with `Surrogate` at least those held out.
        unseen_samples: Unseen samples on which the mixture is chosen, of classes that are retained.
        calibrate: Whether guesses are calibrated.
        rank_noise: Noise on the guesses before they are ranked, in units of their deviation: else targets differ too little.
        aim_below: Log-odds by which targets of the labels are lowered; `correction` of `ImitateUnseen` finds out by how much.
        class_estimators: What guesses for samples of classes of which none is retained, each with the same weight; None: the
            network's own answer.
        class_bank_samples: The same as `bank_samples` for these.
        rank_samples: How many samples forgotten ones are ranked among, a part that represents the bank; None: all of it. With
            `Surrogate` they are those held out, some of which then count more than once.
    """

    view = "none"
    provides = ("targets",)
    train_mode = False
    only_looks = True

    def __init__(
        self,
        estimators: Sequence[Estimator] | None = None,
        weights: Sequence[float] | None = None,
        bank_samples: int = 1000,
        unseen_samples: int = 200,
        calibrate: bool = True,
        rank_noise: float = 0.0,
        aim_below: float = 0.0,
        class_estimators: Sequence[Estimator] | None = None,
        class_bank_samples: int = 2000,
        rank_samples: int | None = None,
    ) -> None:
        super().__init__(max_epochs=0)
        chosen = (Copies(), Neighbours()) if estimators is None else tuple(estimators)
        weights = (1.0,) if weights is None and len(chosen) == 1 else weights
        check_estimators(chosen, weights, class_estimators)
        check_samples(bank_samples, class_bank_samples, unseen_samples, rank_samples)
        check_calibration(rank_noise, aim_below)
        self.requires = ("surrogate", "held_out") if any(estimator.asks_surrogate for estimator in chosen) else ()
        self.estimators = chosen
        self.weights = None if weights is None else tuple(weights)
        self.bank_samples = bank_samples
        self.unseen_samples = unseen_samples
        self.calibrate = calibrate
        self.rank_noise = rank_noise
        self.aim_below = aim_below
        self.class_estimators = (OwnAnswer(),) if class_estimators is None else tuple(class_estimators)
        self.class_bank_samples = class_bank_samples
        self.rank_samples = rank_samples
        self._summary: dict[str, float] = {}

    @property
    def compares_with_unseen(self) -> bool:
        """See `UnlearningStage.compares_with_unseen`: to choose the mixture, and to calibrate."""
        return self.calibrate or self.weights is None or super().compares_with_unseen

    def looks_at_unseen(self, data: UnlearningDataModule) -> bool:
        """See `UnlearningStage.looks_at_unseen`: not for whole classes, of which no unseen sample tells."""
        return super().compares_with_unseen or (self.compares_with_unseen and not data.forgets_whole_classes)

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`; and that there are unseen samples to choose and to calibrate on.

        Args:
            classifier: The network.
            data: The data, split.

        Raises:
            ChainError: There are too few unseen samples of classes that are retained.
        """
        super().check(classifier, data)
        needed, found = 2 if self.weights is None else int(self.calibrate), len(data.unseen_of_retained_classes)
        if found < needed and not data.forgets_whole_classes:
            raise ChainError(
                f"EstimateUnseen: {found} unseen samples of classes that are retained; needed: at least {needed}, to choose "
                f"and to calibrate on. {data.unseen_remedy} Or set calibrate to false and give weights."
            )

    def on_fit_start(self) -> None:
        """Estimate, calibrate, and leave the targets."""
        samples, index = self.data.part("forget")
        targets, gone = samples.targets[index], self.data.gone_classes
        class_gone = torch.isin(targets, gone)
        self._summary, probabilities = {}, torch.empty(len(index), self.num_classes, dtype=torch.float64)
        if bool(class_gone.any()):
            guessed = self._guesses(self.class_estimators, self.class_bank_samples)
            probabilities[class_gone] = guessed.without_classes("forget", index[class_gone], gone)
        if not bool(class_gone.all()):
            probabilities[~class_gone] = self._estimate(index[~class_gone], targets[~class_gone], gone)
        self._summary["forget/acc"] = 100 * float((probabilities.argmax(1) == targets).float().mean())
        self.artifacts["targets"] = {"index": index, "probabilities": probabilities, "class_gone": class_gone}

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """The chosen mixture, and the accuracy of the targets on the forgotten samples."""
        return {"estimate": self._summary}

    def _guesses(self, estimators: Sequence[Estimator], count: int) -> Guesses:
        bank = self.data.random_part("retain", count, "estimate")
        if not any(estimator.asks_surrogate for estimator in estimators):
            return Guesses(estimators, bank, self.rank_samples, self)
        held_out = self.artifacts["held_out"]["index"]
        bank = torch.cat([bank, held_out[~torch.isin(held_out, bank)]]).sort().values
        return Guesses(estimators, bank, self.rank_samples, self, self.artifacts["surrogate"], held_out)

    def _estimate(self, index: Tensor, targets: Tensor, gone: Tensor) -> Tensor:
        guesses = self._guesses(self.estimators, self.bank_samples)
        unseen, weights = self.data.unseen_of_retained_classes, self.weights
        if weights is None:
            chosen = self.data.random_part("unseen", self.unseen_samples, "estimate", among=unseen)
            weights = tuple(guesses.faithful_weights("unseen", chosen))
        shares = enumerate(zip(self.estimators, weights, strict=True), 1)
        self._summary |= {f"weight {i}/{estimator!r}": weight / sum(weights) for i, (estimator, weight) in shares}
        # Struck before they are calibrated: what a class that is gone had taken would lift all labels afterwards.
        probabilities = strike_classes(guesses.mixture(weights, "forget", index), gone)
        if not self.calibrate:
            return probabilities
        members, labels = strike_classes(guesses.mixture_of_members(weights), gone), guesses.member_labels
        truth = strike_classes(guesses.answers("unseen", unseen, None if self.data.augmentation is None else 0), gone)
        true_labels, noise = self.data.part("unseen")[0].targets[unseen], generator("rank noise")
        return calibrated(probabilities, targets, members, labels, truth, true_labels, self.rank_noise, self.aim_below, noise)
