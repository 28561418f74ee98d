"""Estimate what a model that never saw the forgotten samples would say about them."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_unlearn.collect import collect
from lightning_unlearn.data.augment import shift_and_flip
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.loaders import EvaluationLoader
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import log_odds, match_quantiles, neighbour_votes, strike_classes
from lightning_unlearn.functional.divergences import jensen_shannon
from lightning_unlearn.functional.structure import head_name
from lightning_unlearn.random import generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["EstimateUnseen"]

Forward: TypeAlias = Callable[[Batch], Tensor]
# Estimates by copies and by neighbours, each (N, K) or None.
Pieces: TypeAlias = tuple[Tensor | None, Tensor | None]
# Features and labels of retained samples.
Bank: TypeAlias = tuple[Tensor, Tensor]


class EstimateUnseen(UnlearningStage):
    """The first step of imitating the unseen (this project's own method): targets for the forgotten samples.

    Two estimators, both from the original network, which is not changed:

    - *copies*: its mean answer to shifted and mirrored copies of a sample, which it was not trained on;
    - *neighbours*: the labels of the nearest retained samples in the space before its head.

    Their mixture is chosen with the help of unseen samples, for which the true answer is known: it is the network's own. Then
    the estimates are calibrated: their log-odds of the label get the distribution that those of unseen samples have.

    Where whole classes are forgotten, a model that never saw them gives them no probability: they are struck from the
    network's own answer, and nothing is calibrated.

    Artifacts: `targets`, with `index` (F,), `probabilities` (F, K) and whether they are of `whole_classes`.

    Args:
        copies: Copies of each sample.
        shifts: Sizes of the shifts in pixels; each copy is shifted by one of them in both directions, with random signs.
        flip: Whether every second copy is mirrored. Not for digits and letters.
        neighbours: How many nearest retained samples vote; 0: copies alone, which saves a pass over the retained samples.
        bank_samples: Retained samples among which neighbours are looked for, a random part.
        copies_share: Share of the copies in the mixture, in 0 ... 1; None: chosen on unseen samples.
        unseen_samples: Unseen samples on which the mixture is chosen.
        calibrate: Whether log-odds are matched to those of unseen samples.
        rank_noise: Noise on the estimates before they are ranked, in units of their deviation: models that never saw a
            sample differ among themselves, and targets without noise differ too little.
    """

    view = "none"
    provides = ("targets",)
    train_mode = False

    def __init__(
        self,
        copies: int = 8,
        shifts: tuple[int, ...] = (2, 3, 4),
        flip: bool = True,
        neighbours: int = 15,
        bank_samples: int = 2000,
        copies_share: float | None = None,
        unseen_samples: int = 200,
        calibrate: bool = True,
        rank_noise: float = 0.0,
    ) -> None:
        super().__init__(max_epochs=0)
        if copies < 0 or neighbours < 0 or copies + neighbours == 0 or bank_samples < 1:
            raise ChainError(
                f"EstimateUnseen: copies is {copies}, neighbours {neighbours} and bank_samples {bank_samples}; needed: at "
                "least one of copies and neighbours above 0, and samples to look among."
            )
        if copies and not shifts:
            raise ChainError("EstimateUnseen: shifts is empty; needed: at least one size in pixels.")
        if copies_share is None and (copies == 0 or neighbours == 0):
            copies_share = float(neighbours == 0)
        self.copies = copies
        self.shifts = tuple(shifts)
        self.flip = flip
        self.neighbours = neighbours
        self.bank_samples = bank_samples
        self.copies_share = copies_share
        self.unseen_samples = unseen_samples
        self.calibrate = calibrate
        self.rank_noise = rank_noise
        self._summary: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Estimate, calibrate, and leave the targets."""
        samples, index = self.data.part("forget")
        targets = samples.targets[index].to(self.device)
        gone = self._classes_without_retained_samples()
        whole = len(gone) > 0 and bool(torch.isin(targets, gone).all())
        probabilities = strike_classes(self._answers("forget").softmax(1), gone) if whole else self._estimate(targets)
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

    def _estimate(self, targets: Tensor) -> Tensor:
        bank = self._bank() if self.neighbours and self.copies_share != 1 else None
        forgotten = self._pieces("forget", bank)
        share = self._choose_share(forgotten, targets, bank) if self.copies_share is None else self.copies_share
        self._summary["copies_share"] = share
        probabilities = _mixed(forgotten, share)
        if not self.calibrate:
            return probabilities
        samples, index = self.data.part("unseen")
        if len(index) == 0:
            raise ChainError("EstimateUnseen: there are no unseen samples to calibrate on. Set calibrate to false.")
        unseen = log_odds(self._answers("unseen").softmax(1), samples.targets[index].to(self.device))
        return match_quantiles(probabilities, targets, unseen, self.rank_noise, generator("rank noise"))

    def _choose_share(self, forgotten: Pieces, targets: Tensor, bank: Bank | None) -> float:
        """The share of the copies that does least harm to unseen samples and leaves least memory in forgotten ones.

        Harm: Jensen-Shannon between the estimate for an unseen sample and the network's own answer. Memory: how much more the
        estimates believe in the labels of forgotten samples than the network does in those of unseen ones; for a model
        that saw neither, they would be alike.

        Returns:
            Between 0 and 1.

        Raises:
            ChainError: There are no unseen samples.
        """
        chosen = self._some("unseen", self.unseen_samples)
        if len(chosen) == 0:
            raise ChainError("EstimateUnseen: there are no unseen samples to choose on. Set copies_share.")
        samples, _ = self.data.part("unseen")
        truth = self._answers("unseen", chosen)
        labels = samples.targets[chosen].to(self.device)
        belief = truth.softmax(1).gather(1, labels[:, None]).mean()
        pieces = self._pieces("unseen", bank, chosen)
        scores: dict[float, float] = {}
        for share in torch.linspace(0, 1, 11).tolist():
            harm = float(jensen_shannon(_mixed(pieces, share).log(), truth).mean())
            memory = float((_mixed(forgotten, share).gather(1, targets[:, None]).mean() - belief).abs())
            scores[share] = harm + memory
        best = min(scores, key=scores.__getitem__)
        self._summary["harm_and_memory"] = scores[best]
        return best

    def _some(self, part: Part, count: int) -> Tensor:
        """A random part of the samples of a part, the same in every run."""
        samples, index = self.data.part(part)
        return index[order(samples.hashes[index], 0, "estimate")[:count]].sort().values

    def _pieces(self, part: Part, bank: Bank | None, index: Tensor | None = None) -> Pieces:
        """Estimates by copies and by neighbours, each (N, K) or None."""
        copies = self._collect(part, self._copied, index) if self.copies else None
        votes = None
        if bank is not None:
            features = self._collect(part, self._features, index)
            votes = neighbour_votes(features, *bank, self.neighbours, self.num_classes)
        return copies, votes

    def _bank(self) -> Bank:
        index = self._some("retain", self.bank_samples)
        samples, _ = self.data.part("retain")
        return self._collect("retain", self._features, index), samples.targets[index].to(self.device)

    def _answers(self, part: Part, index: Tensor | None = None) -> Tensor:
        return self._collect(part, lambda batch: self.classifier(batch.input).float(), index)

    def _collect(self, part: Part, forward: Forward, index: Tensor | None = None) -> Tensor:
        loader = self.data.evaluation_loader(part)
        if index is None:
            return collect(forward, loader, self.data.part(part)[1], self.trainer)
        ranks = (self.trainer.global_rank, self.trainer.world_size)
        return collect(forward, EvaluationLoader(index, loader.maker, 512, *ranks), index, self.trainer)

    def _copied(self, batch: Batch) -> Tensor:
        """Mean answer to copies of a batch; the same copies for every sample, so that they are comparable."""
        total = torch.zeros(len(batch.index), self.num_classes, device=batch.input.device)
        draws = generator("copies", seed=0)
        ones = torch.ones_like(batch.index)
        for k in range(self.copies):
            size = self.shifts[k % len(self.shifts)]
            dy, dx = (size * (2 * torch.randint(2, (2,), generator=draws) - 1)).tolist()
            mirrored = torch.full_like(batch.index, self.flip and k % 2 == 1, dtype=torch.bool)
            copy = shift_and_flip(batch.input, ones * dy, ones * dx, mirrored)
            total += self.classifier(copy).float().softmax(1)
        return total / self.copies

    def _features(self, batch: Batch) -> Tensor:
        """What enters the head."""
        head = self.classifier.get_submodule(head_name(self.classifier))
        caught: list[Tensor] = []

        def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            caught.append(inputs[0].flatten(1).float())

        handle = head.register_forward_pre_hook(catch)
        try:
            self.classifier(batch.input)
        finally:
            handle.remove()
        return caught[0]

    def _classes_without_retained_samples(self) -> Tensor:
        samples, forget = self.data.part("forget")
        _, retain = self.data.part("retain")
        counts = torch.bincount(samples.targets[retain], minlength=self.num_classes)
        gone: Tensor = samples.targets[forget].unique()  # type: ignore[no-untyped-call]  # missing in torch's annotations
        return gone[counts[gone] == 0].to(self.device)


def _mixed(pieces: Pieces, share: float) -> Tensor:
    """`share` of the copies and the rest of the neighbours; a little of everything, so that logarithms exist."""
    copies, votes = pieces
    mixture = copies if votes is None else votes if copies is None else share * copies + (1 - share) * votes
    assert mixture is not None
    return 0.98 * mixture + 0.02 / mixture.shape[1]
