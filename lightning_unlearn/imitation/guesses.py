"""What several estimators say about samples, beside what the network itself says."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_unlearn.artifacts import Tensors
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.frozen_beginning import FrozenBeginning, RunningStage, features_too_large
from lightning_unlearn.functional.calibration import log_odds, strike_classes
from lightning_unlearn.functional.cut import cut
from lightning_unlearn.functional.mixture import choose_mixture, mixed
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation.compared import BankEstimator, Fitted, features_of
from lightning_unlearn.imitation.estimators import AnswerEstimator, Estimator, OwnAnswer

__all__ = ["Guesses"]

# Samples whose features are looked up and pooled at once.
_CHUNK = 512


class Guesses:
    """Probabilities by several estimators; what they need of the bank is computed once.

    Args:
        estimators: What guesses.
        bank: Indices of the retained samples that estimators may look at, (M,), sorted.
        members: How many samples others are ranked among, which represent the bank; None: as many as it has.
        stage: In its fit; its network is in eval mode. Where an estimator looks at what enters the last stage, that is computed
            once, and left to later stages.
        surrogate: Weights and buffers of the network that `Surrogate` asks, by name; None: there is none.
        held_out: Those of the bank that the surrogate did not see, sorted: others are ranked among these alone, of which some
            then count more than once; None: among any.
    """

    def __init__(
        self,
        estimators: Sequence[Estimator],
        bank: Tensor,
        members: int | None,
        stage: RunningStage,
        surrogate: Tensors | None = None,
        held_out: Tensor | None = None,
    ) -> None:
        self._estimators, self._bank = estimators, bank
        self._network, self._data, self._trainer = stage.classifier, stage.data, stage.trainer
        self._labels = self._data.part("retain")[0].targets
        self._beginning = _beginning(stage, len(bank)) if any(map(_looks_at_last_stage, estimators)) else None
        self._surrogate: _WithWeights | None = None
        if surrogate is not None:
            device = self._trainer.strategy.root_device
            self._surrogate = _WithWeights(self._network, {name: value.to(device) for name, value in surrogate.items()})
        self._fitted: dict[int, Fitted] = {}
        self._of_members: dict[int, Tensor] = {}
        self._count = len(bank) if members is None else min(members, len(bank))
        self._pool = bank if held_out is None else held_out

    @property
    def member_labels(self) -> Tensor:
        """Labels of the members, (R,), int64."""
        return self._labels[self._members]

    def answers(self, part: Part, index: Tensor, epoch: int | None = None) -> Tensor:
        """The network's own probabilities.

        Args:
            part: Part of the data.
            index: Samples of it, (N,), sorted.
            epoch: The pass of a training as in which images are augmented; None: they are not.

        Returns:
            (N, K), float64 on the CPU: in float32 a sure answer would be no different from a certain one.
        """
        return self._ask(OwnAnswer(), part, index, epoch).double().softmax(1)

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
                asked, said = self._bank, self._fit(i, estimator).of_bank()
            else:
                asked = self._pool[torch.isin(self._pool, self._members)]
                said = self.of(i, "retain", asked)
            self._of_members[i] = said[torch.searchsorted(asked, self._members)]
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

    @cached_property
    def _members(self) -> Tensor:
        """Samples that others are ranked among, (R,), sorted; looked for where something is ranked."""
        # By chance a part is harder or easier than the bank, and all targets are with it. So where an estimator guesses about
        # the whole bank anyway, places are spread evenly over the log-odds that it gives to the labels, and at each stands the
        # nearest sample; of the few that were held out some stand more than once.
        first = next(((i, of) for i, of in enumerate(self._estimators) if _guesses_about_bank(of)), None)
        if first is None or self._count == len(self._pool) == len(self._bank):
            return self._data.random_part("retain", self._count, "estimate", among=self._pool)
        known = log_odds(self._fit(*first).of_bank(), self._labels[self._bank])
        places = known.sort().values[((torch.arange(self._count) + 0.5) * len(known) / self._count).long()]
        return self._pool[_nearest(places, known[torch.searchsorted(self._bank, self._pool)])].sort().values

    def _fit(self, i: int, estimator: BankEstimator) -> Fitted:
        if i not in self._fitted:
            rows = self._ask(estimator, "retain", self._bank)
            self._fitted[i] = estimator.fit(rows, self._labels[self._bank], self._data.num_classes)
        return self._fitted[i]

    def _ask(self, estimator: Estimator, part: Part, index: Tensor, epoch: int | None = None) -> Tensor:
        """The rows of an estimator, on the CPU; from what was computed of the beginning where it needs no more."""
        if self._beginning is not None and type(estimator) is OwnAnswer and epoch is None:
            return self._beginning.logits(part, index).cpu()
        if self._beginning is not None and _looks_at_last_stage(estimator):
            table = self._beginning.of(part, index)
            return torch.cat([estimator.pooled(table[of]) for of in torch.split(index.to(table.rows.device), _CHUNK)]).cpu()
        asked: nn.Module = self._network
        if estimator.asks_surrogate:
            assert self._surrogate is not None  # the chain was checked
            asked = self._surrogate
        loader = self._data.evaluation_loader(part, index, epoch=epoch)
        return collect(lambda batch: estimator.rows(asked, batch.input), loader, index, self._trainer).cpu()


def _looks_at_last_stage(estimator: Estimator) -> TypeGuard[BankEstimator]:
    """Whether its rows are what enters the last stage of the network, and nothing else."""
    if not _guesses_about_bank(estimator):
        return False
    return estimator.layer == "last_stage" and type(estimator).rows is BankEstimator.rows


def _beginning(stage: RunningStage, bank: int) -> FrozenBeginning | None:
    """The network up to its last stage, as who trains the last stage and the head will find it.

    Args:
        stage: In its fit.
        bank: Samples of the bank.

    Returns:
        None where something else enters the last stage than one tensor, or where features would take too much memory.
    """
    end = ParameterSelector(parts=["last_stage", "head"]).names(stage.classifier)
    image = stage.example_image()
    found = cut(stage.classifier, end, image)
    samples = bank + sum(len(stage.data.part(part)[1]) for part in ("forget", "unseen"))
    if found is None or features_too_large(found, stage, samples) is not None:
        return None
    counted = stage.work.forward
    with torch.no_grad(), stage.trainer.precision_plugin.forward_context():
        same = torch.equal(found.prefix(image), features_of(stage.classifier, image, "last_stage"))
    stage.work.forward = counted  # a look at one image, on every rank, is no work of the method
    return FrozenBeginning(found, stage) if same else None


class _WithWeights(nn.Module):
    """A network as it would be with other weights and buffers; it is not changed."""

    def __init__(self, network: nn.Module, weights: Tensors) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, dict(self.weights), (x,))
        return logits


def _guesses_about_bank(estimator: Estimator) -> TypeGuard[BankEstimator]:
    """Whether it compares with the bank, in a network to which all of the bank is alike."""
    return isinstance(estimator, BankEstimator) and not estimator.asks_surrogate


def _nearest(values: Tensor, among: Tensor) -> Tensor:
    """For each of some sorted values the number of the nearest of others, (R,) and (P,) -> (R,); equal ones take turns."""
    found, order = among.sort()
    right = torch.searchsorted(found, values).clamp(max=len(found) - 1)
    left = (right - 1).clamp(min=0)
    chosen = torch.where(values - found[left] < found[right] - values, found[left], found[right])
    begin, end = torch.searchsorted(found, chosen), torch.searchsorted(found, chosen, right=True)
    turn = torch.arange(len(chosen)) - torch.searchsorted(chosen, chosen)
    return order[begin + turn % (end - begin)]


def _mixture(weights: Sequence[float], guess: Callable[[int], Tensor]) -> Tensor:
    """The weighted mean; estimators without weight are not asked."""
    used = [i for i, weight in enumerate(weights) if weight > 0]
    return mixed([guess(i) for i in used], [weights[i] for i in used])
