"""Estimate what a model that never saw the forgotten samples would say about them."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_unlearn.estimators import Copies, Estimator, Neighbours
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import (
    log_odds,
    match_quantiles,
    sharpening_exponent,
    strike_classes,
    with_log_odds,
)
from lightning_unlearn.functional.mixture import LEAST, choose_mixture
from lightning_unlearn.guesses import Guesses
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["EstimateUnseen"]


class EstimateUnseen(UnlearningStage):
    """The first step of imitating the unseen (this project's own method): targets for the forgotten samples.

    Estimators give a first guess, from the original network, which is not changed; their mixture is chosen with the help of
    unseen samples, for which the true answer is known: it is the network's own. Then the guesses are calibrated: a forgotten
    sample is ranked, by the log-odds of its label, among *retained* samples, of which the estimators remember as much, and
    gets the log-odds that an unseen sample of that rank has; the other classes are sharpened towards answers to unseen samples.

    Where whole classes are forgotten, a model that never saw them gives them no probability: they are struck from the
    network's own answer, and nothing is calibrated.

    Artifacts: `targets`, with `index` (F,), `probabilities` (F, K), float64, and whether they are of `whole_classes`; on the
    CPU.

    Args:
        estimators: What guesses; None: `Copies` and `Neighbours` with their defaults.
        weights: Weight of each estimator; None: chosen on unseen samples; see `choose_mixture`.
        bank_samples: Retained samples among which neighbours are looked for and forgotten samples are ranked, a random part.
        unseen_samples: Unseen samples on which the mixture is chosen.
        calibrate: Whether guesses are calibrated.
        rank_noise: Noise on the guesses before they are ranked, in units of their deviation: models that never saw a
            sample differ among themselves, and targets without noise differ too little.
        aim_below: Log-odds by which the targets of the labels are lowered: a short teaching ends that much above them.
    """

    view = "none"
    provides = ("targets",)
    train_mode = False

    def __init__(
        self,
        estimators: Sequence[Estimator] | None = None,
        weights: Sequence[float] | None = None,
        bank_samples: int = 1000,
        unseen_samples: int = 200,
        calibrate: bool = True,
        rank_noise: float = 0.0,
        aim_below: float = 0.0,
    ) -> None:
        super().__init__(max_epochs=0)
        chosen = (Copies(), Neighbours()) if estimators is None else tuple(estimators)
        if weights is None and len(chosen) == 1:
            weights = (1.0,)
        fits = weights is None or (len(weights) == len(chosen) and all(w >= 0 for w in weights) and sum(weights) > 0)
        if not chosen or not fits:
            given = None if weights is None else list(weights)
            raise ChainError(
                f"EstimateUnseen: {len(chosen)} estimators and weights {given}; needed: at least one estimator, and one weight "
                "of 0 or more for each, not all 0, or none at all."
            )
        if bank_samples < 1 or unseen_samples < 1 or not rank_noise >= 0 or not math.isfinite(aim_below):
            raise ChainError(
                f"EstimateUnseen: bank_samples is {bank_samples}, unseen_samples {unseen_samples}, rank_noise {rank_noise} and "
                f"aim_below {aim_below}; needed: at least one sample of each, noise of 0 or more, and a finite number."
            )
        self.estimators = chosen
        self.weights = None if weights is None else tuple(weights)
        self.bank_samples = bank_samples
        self.unseen_samples = unseen_samples
        self.calibrate = calibrate
        self.rank_noise = rank_noise
        self.aim_below = aim_below
        self._summary: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Estimate, calibrate, and leave the targets."""
        samples, index = self.data.part("forget")
        targets = samples.targets[index]
        gone = self._classes_without_retained_samples()
        whole = len(gone) > 0 and bool(torch.isin(targets, gone).all())
        bank = self.data.random_part("retain", self.bank_samples, "estimate")
        guesses = Guesses(self.estimators, bank, self.classifier, self.data, self.trainer, self.num_classes)
        if whole:
            probabilities = strike_classes(guesses.answers("forget", index), gone)
        else:
            probabilities = self._estimate(guesses, index, targets)
        right = (probabilities.argmax(1) == targets).float().mean()
        self._summary["forget/acc"] = 100 * float(right)
        self.artifacts["targets"] = {
            "index": index,
            "probabilities": probabilities,
            "whole_classes": torch.tensor(whole),
        }

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """The chosen mixture, and the accuracy of the targets on the forgotten samples."""
        return {"estimate": self._summary}

    def _estimate(self, guesses: Guesses, index: Tensor, targets: Tensor) -> Tensor:
        unseen, everything = self.data.part("unseen")
        if len(everything) == 0 and (self.calibrate or self.weights is None):
            raise ChainError(
                "EstimateUnseen: no unseen samples to calibrate and choose on. Set calibrate to false and give weights."
            )
        weights = self._choose(guesses) if self.weights is None else self.weights
        for estimator, weight in zip(self.estimators, weights, strict=True):
            self._summary[f"weight/{estimator!r}"] = weight / sum(weights)
        probabilities = guesses.mixture(weights, "forget", index)
        if not self.calibrate:
            return probabilities
        members, labels = guesses.mixture_of_bank(weights), guesses.bank_labels
        truth, truth_labels = guesses.answers("unseen", everything), unseen.targets[everything]
        values = match_quantiles(
            log_odds(probabilities, targets, LEAST),
            log_odds(members, labels, LEAST),
            log_odds(truth, truth_labels),
            self.rank_noise,
            generator("rank noise"),
        )
        # Half of the way: on unseen samples of CIFAR-10 the whole exponent raised Jensen-Shannon by 5 %, its root by nothing.
        exponent = sharpening_exponent(members, labels, truth, truth_labels) ** 0.5
        return with_log_odds(probabilities, targets, values - self.aim_below, exponent)

    def _choose(self, guesses: Guesses) -> list[float]:
        chosen = self.data.random_part("unseen", self.unseen_samples, "estimate")
        labels = self.data.part("unseen")[0].targets[chosen]
        every = range(len(self.estimators))
        members, unseen = [guesses.of_bank(i) for i in every], [guesses.of(i, "unseen", chosen) for i in every]
        return choose_mixture(members, guesses.bank_labels, unseen, labels, log_odds(guesses.answers("unseen", chosen), labels))

    def _classes_without_retained_samples(self) -> Tensor:
        samples, forget = self.data.part("forget")
        _, retain = self.data.part("retain")
        counts = torch.bincount(samples.targets[retain], minlength=self.num_classes)
        gone: Tensor = samples.targets[forget].unique()  # type: ignore[no-untyped-call]  # missing in torch's annotations
        return gone[counts[gone] == 0]
