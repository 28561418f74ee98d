"""What several estimators say about samples, beside what the network itself says."""

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.func import functional_call

from lightning_unlearn.artifacts import Tensors
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import log_odds, strike_classes
from lightning_unlearn.functional.mixture import choose_mixture, mixed
from lightning_unlearn.imitation.estimators import Estimator

__all__ = ["Guesses", "check_estimators", "check_samples"]


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


def check_samples(bank_samples: int, class_bank_samples: int, unseen_samples: int) -> None:
    """Refuse too few samples to guess by.

    Args:
        bank_samples: Retained samples among which a sample is compared, itself left out.
        class_bank_samples: The same for samples of classes that go as a whole.
        unseen_samples: Unseen samples on which a mixture is chosen.

    Raises:
        ChainError: A bank has fewer than two samples, or there is no unseen one.
    """
    if min(bank_samples, class_bank_samples) < 2 or unseen_samples < 1:
        raise ChainError(
            f"EstimateUnseen: bank_samples is {bank_samples}, class_bank_samples {class_bank_samples} and unseen_samples "
            f"{unseen_samples}; needed: at least two samples in each bank, and one unseen sample."
        )


class Guesses:
    """Probabilities by several estimators; what they need of the bank is computed once.

    Args:
        estimators: What guesses.
        bank: Indices of the retained samples that estimators may look at, (M,).
        network: The network, on its device and in eval mode.
        data: The data, split.
        trainer: Moves batches, and joins what the ranks saw.
        num_classes: K.
        surrogate: Weights and buffers of the network that `Surrogate` asks, by name; None: there is none.
    """

    def __init__(
        self,
        estimators: Sequence[Estimator],
        bank: Tensor,
        network: nn.Module,
        data: UnlearningDataModule,
        trainer: Trainer,
        num_classes: int,
        surrogate: Tensors | None = None,
    ) -> None:
        self.estimators, self.bank, self.num_classes = estimators, bank, num_classes
        self.bank_labels = data.part("retain")[0].targets[bank]
        self._network, self._data, self._trainer = network, data, trainer
        device = trainer.strategy.root_device
        self._surrogate = None if surrogate is None else _WithWeights(network, {n: t.to(device) for n, t in surrogate.items()})
        self._bank_rows: dict[int, Tensor] = {}
        self._members: dict[int, Tensor] = {}

    def answers(self, part: Part, index: Tensor) -> Tensor:
        """The network's own probabilities.

        Args:
            part: Part of the data.
            index: Samples of it, (N,).

        Returns:
            (N, K), float64 on the CPU: in float32 a sure answer would be no different from a certain one.
        """
        loader = self._data.evaluation_loader(part, index)
        logits = collect(lambda batch: self._network(batch.input).float(), loader, index, self._trainer)
        return logits.cpu().double().softmax(1)

    def of(self, i: int, part: Part, index: Tensor) -> Tensor:
        """What one estimator says.

        Args:
            i: Its number.
            part: Part of the data.
            index: Samples of it, (N,).

        Returns:
            (N, K), on the CPU.
        """
        rows = self._rows(i, part, index)
        # Those that do not look at the bank need no features of it.
        bank = self._rows_of_bank(i) if self.estimators[i].uses_bank else rows
        return self.estimators[i].estimate(rows, bank, self.bank_labels, self.num_classes, False)

    def without_classes(self, part: Part, index: Tensor, classes: Tensor) -> Tensor:
        """The mean of what all of them say once some classes are struck from it; see `strike_classes`.

        Args:
            part: Part of the data.
            index: Samples of it, (N,).
            classes: Classes that get no probability, (C,).

        Returns:
            (N, K), float64.
        """
        said = [strike_classes(self.of(i, part, index).double(), classes) for i in range(len(self.estimators))]
        return torch.stack(said).mean(0)

    def of_bank(self, i: int) -> Tensor:
        """What one estimator says about the bank itself, each sample without its own entry.

        Args:
            i: Its number.

        Returns:
            (M, K), on the CPU.
        """
        if i not in self._members:
            rows = self._rows_of_bank(i)
            self._members[i] = self.estimators[i].estimate(rows, rows, self.bank_labels, self.num_classes, True)
        return self._members[i]

    def faithful_weights(self, part: Part, index: Tensor) -> list[float]:
        """The mixture of them that best follows what the network says of samples that it never saw; see `choose_mixture`.

        Args:
            part: Part of the data that holds such samples.
            index: Samples of it, (N,), at least two.

        Returns:
            One weight per estimator.
        """
        labels = self._data.part(part)[0].targets[index]
        every = range(len(self.estimators))
        members, others = [self.of_bank(i) for i in every], [self.of(i, part, index) for i in every]
        return choose_mixture(members, self.bank_labels, others, labels, log_odds(self.answers(part, index), labels))

    def mixture(self, weights: Sequence[float], part: Part, index: Tensor) -> Tensor:
        """The weighted mean of what they say; see `mixed`.

        Args:
            weights: One per estimator.
            part: Part of the data.
            index: Samples of it, (N,).

        Returns:
            (N, K), float64.
        """
        return _mixture(weights, lambda i: self.of(i, part, index))

    def mixture_of_bank(self, weights: Sequence[float]) -> Tensor:
        """The same for the bank.

        Args:
            weights: One per estimator.

        Returns:
            (M, K), float64.
        """
        return _mixture(weights, self.of_bank)

    def _rows_of_bank(self, i: int) -> Tensor:
        if i not in self._bank_rows:
            self._bank_rows[i] = self._rows(i, "retain", self.bank)
        return self._bank_rows[i]

    def _rows(self, i: int, part: Part, index: Tensor) -> Tensor:
        loader = self._data.evaluation_loader(part, index)
        asked = self._network
        if self.estimators[i].asks_surrogate:
            assert self._surrogate is not None  # the chain was checked
            asked = self._surrogate
        return collect(lambda batch: self.estimators[i].rows(asked, batch.input), loader, index, self._trainer).cpu()


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
