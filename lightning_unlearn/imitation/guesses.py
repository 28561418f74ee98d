"""What several estimators say about samples, beside what the network itself says."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_unlearn.artifacts import Tensors
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.frozen_beginning import RunningStage, before_last_stage
from lightning_unlearn.functional.calibration import log_odds, strike_classes
from lightning_unlearn.functional.mixture import choose_mixture, mixed
from lightning_unlearn.imitation.estimators import AnswerEstimator, BankEstimator, Estimator, Fitted, OwnAnswer

__all__ = ["Guesses", "check_calibration", "check_estimators", "check_samples"]

# Samples whose features are looked up and pooled at once.
_CHUNK = 512


def check_estimators(
    estimators: Sequence[Estimator], weights: Sequence[float] | None, class_estimators: Sequence[Estimator] | None
) -> None:
    """Refuse estimators and weights that do not fit.

    Args:
        estimators: What guesses.
        weights: One for each; None: they are chosen later.
        class_estimators: What guesses for samples of classes of which none is retained; None: the network's own answer.

    Raises:
        ChainError: There is no estimator, or there are more or fewer weights, one below 0, or none above it; or what guesses
            for whole classes is nothing, or a surrogate.
    """
    fits = weights is None or (len(weights) == len(estimators) and all(w >= 0 for w in weights) and sum(weights) > 0)
    if not estimators or not fits:
        given = None if weights is None else list(weights)
        raise ChainError(
            f"EstimateUnseen: {len(estimators)} estimators and weights {given}; needed: at least one estimator, and one "
            "weight of 0 or more for each, not all 0, or none at all."
        )
    if class_estimators is not None and (not class_estimators or any(e.asks_surrogate for e in class_estimators)):
        raise ChainError(
            f"EstimateUnseen: class_estimators is {list(class_estimators)}; needed: at least one, and not Surrogate, which "
            "is not trained where whole classes alone are forgotten; or null for OwnAnswer."
        )


def check_samples(bank_samples: int, class_bank_samples: int, unseen_samples: int, rank_samples: int | None) -> None:
    """Refuse too few samples to guess by.

    Args:
        bank_samples: Retained samples among which a sample is compared, itself left out.
        class_bank_samples: The same for samples of classes that go as a whole.
        unseen_samples: Unseen samples on which a mixture is chosen.
        rank_samples: Samples of the bank among which others are ranked; None: all.

    Raises:
        ChainError: A bank has fewer than two samples, or there is none to rank among, or no unseen one.
    """
    if min(bank_samples, class_bank_samples) < 2 or unseen_samples < 1 or (rank_samples is not None and rank_samples < 1):
        raise ChainError(
            f"EstimateUnseen: bank_samples is {bank_samples}, class_bank_samples {class_bank_samples}, rank_samples "
            f"{rank_samples} and unseen_samples {unseen_samples}; needed: at least two samples in each bank, and one to rank "
            "among and one unseen sample."
        )


def check_calibration(rank_noise: float, aim_below: float) -> None:
    """Refuse a calibration that cannot be.

    Args:
        rank_noise: Noise on guesses before they are ranked.
        aim_below: Log-odds by which targets are lowered.

    Raises:
        ChainError: The noise is below 0, or the other is not finite.
    """
    if not rank_noise >= 0 or not math.isfinite(aim_below):
        raise ChainError(
            f"EstimateUnseen: aim_below is {aim_below} and rank_noise {rank_noise}; needed: a finite number, and 0 or more."
        )


class Guesses:
    """Probabilities by several estimators; what they need of the bank is computed once.

    Args:
        estimators: What guesses.
        bank: Indices of the retained samples that estimators may look at, (M,), sorted.
        members: Those of them among which others are compared, (R,), sorted.
        stage: In its fit; its network is in eval mode. Where an estimator looks at what enters the last stage, that is computed
            once, and left to later stages.
        surrogate: Weights and buffers of the network that `Surrogate` asks, by name; None: there is none.
    """

    def __init__(
        self,
        estimators: Sequence[Estimator],
        bank: Tensor,
        members: Tensor,
        stage: RunningStage,
        surrogate: Tensors | None = None,
    ) -> None:
        self._estimators, self._bank, self._members = estimators, bank, members
        self._network, self._data, self._trainer = stage.classifier, stage.data, stage.trainer
        self._labels = self._data.part("retain")[0].targets
        self._beginning = before_last_stage(stage) if any(map(_looks_at_last_stage, estimators)) else None
        self._surrogate: _WithWeights | None = None
        if surrogate is not None:
            device = self._trainer.strategy.root_device
            self._surrogate = _WithWeights(self._network, {name: value.to(device) for name, value in surrogate.items()})
        self._fitted: dict[int, Fitted] = {}
        self._of_members: dict[int, Tensor] = {}

    @property
    def member_labels(self) -> Tensor:
        """Labels of the members, (R,), int64."""
        return self._labels[self._members]

    def answers(self, part: Part, index: Tensor) -> Tensor:
        """The network's own probabilities.

        Args:
            part: Part of the data.
            index: Samples of it, (N,), sorted.

        Returns:
            (N, K), float64 on the CPU: in float32 a sure answer would be no different from a certain one.
        """
        return self._ask(OwnAnswer(), part, index).double().softmax(1)

    def of(self, i: int, part: Part, index: Tensor) -> Tensor:
        """What one estimator says.

        Args:
            i: Its number.
            part: Part of the data.
            index: Samples of it, (N,), sorted.

        Returns:
            (N, K), on the CPU.
        """
        estimator = self._estimators[i]
        rows = self._ask(estimator, part, index)
        if isinstance(estimator, BankEstimator):
            return self._fit(i, estimator).of(rows)
        return cast(AnswerEstimator, estimator).estimate(rows, self._data.num_classes)

    def of_members(self, i: int) -> Tensor:
        """What one estimator says about the members, each without its own entry in the bank.

        Args:
            i: Its number.

        Returns:
            (R, K), on the CPU.
        """
        if i not in self._of_members:
            estimator = self._estimators[i]
            if isinstance(estimator, BankEstimator):
                whole = self._fit(i, estimator).of_bank()
                self._of_members[i] = whole[torch.searchsorted(self._bank, self._members)]
            else:
                self._of_members[i] = self.of(i, "retain", self._members)
        return self._of_members[i]

    def without_classes(self, part: Part, index: Tensor, classes: Tensor) -> Tensor:
        """The mean of what all of them say once some classes are struck from it; see `strike_classes`.

        Args:
            part: Part of the data.
            index: Samples of it, (N,), sorted.
            classes: Classes that get no probability, (C,).

        Returns:
            (N, K), float64.
        """
        said = [strike_classes(self.of(i, part, index).double(), classes) for i in range(len(self._estimators))]
        return torch.stack(said).mean(0)

    def faithful_weights(self, part: Part, index: Tensor) -> list[float]:
        """The mixture of them that best follows what the network says of samples that it never saw; see `choose_mixture`.

        Args:
            part: Part of the data that holds such samples.
            index: Samples of it, (N,), sorted, at least two.

        Returns:
            One weight per estimator.
        """
        labels = self._data.part(part)[0].targets[index]
        every = range(len(self._estimators))
        members, others = [self.of_members(i) for i in every], [self.of(i, part, index) for i in every]
        return choose_mixture(members, self.member_labels, others, labels, log_odds(self.answers(part, index), labels))

    def mixture(self, weights: Sequence[float], part: Part, index: Tensor) -> Tensor:
        """The weighted mean of what they say; see `mixed`.

        Args:
            weights: One per estimator.
            part: Part of the data.
            index: Samples of it, (N,), sorted.

        Returns:
            (N, K), float64.
        """
        return _mixture(weights, lambda i: self.of(i, part, index))

    def mixture_of_members(self, weights: Sequence[float]) -> Tensor:
        """The same for the members.

        Args:
            weights: One per estimator.

        Returns:
            (R, K), float64.
        """
        return _mixture(weights, self.of_members)

    def _fit(self, i: int, estimator: BankEstimator) -> Fitted:
        if i not in self._fitted:
            rows = self._ask(estimator, "retain", self._bank)
            self._fitted[i] = estimator.fit(rows, self._labels[self._bank], self._data.num_classes)
        return self._fitted[i]

    def _ask(self, estimator: Estimator, part: Part, index: Tensor) -> Tensor:
        """The rows of an estimator, on the CPU; from what was computed of the beginning where it needs no more."""
        if self._beginning is not None and type(estimator) is OwnAnswer:
            return self._beginning.logits(part, index).cpu()
        if self._beginning is not None and _looks_at_last_stage(estimator):
            table = self._beginning.of(part, index)
            return torch.cat([estimator.pooled(table[of]) for of in torch.split(index.to(table.rows.device), _CHUNK)]).cpu()
        asked: nn.Module = self._network
        if estimator.asks_surrogate:
            assert self._surrogate is not None  # the chain was checked
            asked = self._surrogate
        loader = self._data.evaluation_loader(part, index)
        return collect(lambda batch: estimator.rows(asked, batch.input), loader, index, self._trainer).cpu()


def _looks_at_last_stage(estimator: Estimator) -> TypeGuard[BankEstimator]:
    return isinstance(estimator, BankEstimator) and estimator.layer == "last_stage"


class _WithWeights(nn.Module):
    """A network as it would be with other weights and buffers; it is not changed."""

    def __init__(self, network: nn.Module, weights: Tensors) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, dict(self.weights), (x,))
        return logits


def _mixture(weights: Sequence[float], guess: Callable[[int], Tensor]) -> Tensor:
    """The weighted mean; estimators without weight are not asked."""
    used = [i for i, weight in enumerate(weights) if weight > 0]
    return mixed([guess(i) for i in used], [weights[i] for i in used])
