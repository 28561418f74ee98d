"""Estimate what a model that never saw the forgotten samples would say about them."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_unlearn.collect import collect
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.estimators import Copies, Estimator, Neighbours
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import (
    log_odds,
    match_quantiles,
    sharpening_exponent,
    strike_classes,
    with_log_odds,
)
from lightning_unlearn.functional.divergences import jensen_shannon
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["EstimateUnseen"]

# Rounds of the greedy choice of a mixture: weights come in tenths.
_ROUNDS = 10


class EstimateUnseen(UnlearningStage):
    """The first step of imitating the unseen (this project's own method): targets for the forgotten samples.

    Estimators give a first guess, from the original network, which is not changed; their mixture is chosen with the help of
    unseen samples, for which the true answer is known: it is the network's own. Then the guesses are calibrated: a forgotten
    sample is ranked, by the log-odds of its label, among *retained* samples, of which the estimators remember as much, and
    gets the log-odds that an unseen sample of that rank has; the other classes are sharpened towards answers to unseen samples.

    Where whole classes are forgotten, a model that never saw them gives them no probability: they are struck from the
    network's own answer, and nothing is calibrated.

    Artifacts: `targets`, with `index` (F,), `probabilities` (F, K) and whether they are of `whole_classes`.

    Args:
        estimators: What guesses; None: `Copies` and `Neighbours` with their defaults.
        weights: Weight of each estimator; None: chosen on unseen samples (greedily: Caruana et al. 2004, ICML).
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
        self._bank_rows: dict[int, Tensor] = {}

    def on_fit_start(self) -> None:
        """Estimate, calibrate, and leave the targets."""
        samples, index = self.data.part("forget")
        targets = samples.targets[index].to(self.device)
        gone = self._classes_without_retained_samples()
        whole = len(gone) > 0 and bool(torch.isin(targets, gone).all())
        probabilities = strike_classes(self._answers("forget", index), gone) if whole else self._estimate(index, targets)
        right = (probabilities.argmax(1) == targets).float().mean()
        self._summary["forget/acc"] = 100 * float(right)
        self.artifacts["targets"] = {
            "index": index,
            "probabilities": probabilities,
            "whole_classes": torch.tensor(whole),
        }
        self._bank_rows = {}

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """The chosen mixture, and the accuracy of the targets on the forgotten samples."""
        return {"estimate": self._summary}

    def _estimate(self, index: Tensor, targets: Tensor) -> Tensor:
        bank = self.data.random_part("retain", self.bank_samples, "estimate")
        unseen, everything = self.data.part("unseen")
        if len(everything) == 0 and (self.calibrate or self.weights is None):
            raise ChainError(
                "EstimateUnseen: no unseen samples to calibrate and choose on. Set calibrate to false and give weights."
            )
        used = [i for i in range(len(self.estimators)) if self.weights is None or self.weights[i] > 0]
        guesses = {i: self._guess(i, "forget", index, bank) for i in used}
        weights = self._choose(guesses, targets, bank) if self.weights is None else self.weights
        for estimator, weight in zip(self.estimators, weights, strict=True):
            self._summary[f"weight/{estimator!r}"] = weight / sum(weights)
        probabilities = _mixed(guesses, weights)
        if not self.calibrate:
            return probabilities
        samples, _ = self.data.part("retain")
        labels = samples.targets[bank].to(self.device)
        members = _mixed({i: self._guess(i, "retain", bank, bank) for i in used if weights[i] > 0}, weights)
        truth, truth_labels = self._answers("unseen", everything), unseen.targets[everything].to(self.device)
        values, ranked = log_odds(probabilities, targets), log_odds(members, labels)
        source = generator("rank noise")
        values = match_quantiles(values, ranked, log_odds(truth, truth_labels), self.rank_noise, source)
        # Half of the way: on unseen samples of CIFAR-10 the whole exponent raised Jensen-Shannon by 5 %, its root by nothing.
        exponent = sharpening_exponent(members, labels, truth, truth_labels) ** 0.5
        return with_log_odds(probabilities, targets, values - self.aim_below, exponent)

    def _choose(self, guesses: Mapping[int, Tensor], targets: Tensor, bank: Tensor) -> list[float]:
        """The mixture that does least harm to unseen samples and leaves least memory in forgotten ones.

        Harm: Jensen-Shannon between the estimate for an unseen sample and the network's own answer. Memory: how much more the
        estimates believe in the labels of forgotten samples than the network does in those of unseen ones; for a model
        that saw neither, they would be alike.

        Returns:
            A weight per estimator.
        """
        chosen = self.data.random_part("unseen", self.unseen_samples, "estimate")
        samples, _ = self.data.part("unseen")
        truth = self._answers("unseen", chosen)
        belief = truth.gather(1, samples.targets[chosen].to(self.device)[:, None]).mean()
        unseen = {i: self._guess(i, "unseen", chosen, bank) for i in guesses}

        def score(weights: Sequence[float]) -> float:
            harm = float(jensen_shannon(_mixed(unseen, weights).log(), truth.clamp(min=1e-12).log()).mean())
            return harm + float((_mixed(guesses, weights).gather(1, targets[:, None]).mean() - belief).abs())

        best = [0.0] * len(guesses)
        for _ in range(_ROUNDS):
            best = min(([w + (i == k) for i, w in enumerate(best)] for k in range(len(best))), key=score)
        self._summary["harm_and_memory"] = score(best)
        return best

    def _guess(self, i: int, part: Part, index: Tensor, bank: Tensor) -> Tensor:
        """Probabilities (N, K) of samples by one estimator."""
        if i not in self._bank_rows and (part == "retain" or self.estimators[i].uses_bank):
            self._bank_rows[i] = self._rows(i, "retain", bank)
        rows = self._bank_rows[i] if part == "retain" else self._rows(i, part, index)
        samples, _ = self.data.part("retain")
        labels = samples.targets[bank].to(self.device)
        return self.estimators[i].estimate(rows, self._bank_rows.get(i, rows), labels, self.num_classes, part == "retain")

    def _rows(self, i: int, part: Part, index: Tensor) -> Tensor:
        loader = self.data.evaluation_loader(part, index)
        return collect(lambda batch: self.estimators[i].rows(self.classifier, batch.input), loader, index, self.trainer)

    def _answers(self, part: Part, index: Tensor) -> Tensor:
        """The network's own probabilities."""
        loader = self.data.evaluation_loader(part, index)
        return collect(lambda batch: self.classifier(batch.input).float().softmax(1), loader, index, self.trainer)

    def _classes_without_retained_samples(self) -> Tensor:
        samples, forget = self.data.part("forget")
        _, retain = self.data.part("retain")
        counts = torch.bincount(samples.targets[retain], minlength=self.num_classes)
        gone: Tensor = samples.targets[forget].unique()  # type: ignore[no-untyped-call]  # missing in torch's annotations
        return gone[counts[gone] == 0].to(self.device)


def _mixed(guesses: Mapping[int, Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean; a little of everything, so that logarithms exist."""
    total = torch.stack([weights[i] * guess for i, guess in guesses.items()]).sum(0) / sum(weights)
    return 0.98 * total + 0.02 / total.shape[1]
