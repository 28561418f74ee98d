"""Forget whole classes by one step along the weights that matter to them, found from one image per class."""

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lightning_unlearn.data.collect import sum_over_ranks
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.mnemonic import forgetting_step, mean_squared_gradient
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator, run_seed
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_fisher
from lightning_unlearn.weights.mnemonic import codes_for, judge_step

__all__ = ["MnemonicForgetting"]

Perturbation: TypeAlias = Literal["best", "plus", "minus", "gaussian"]
Source: TypeAlias = Literal["codes", "data"]


class MnemonicForgetting(UnlearningStage):
    """One-shot unlearning of whole classes (Yamashita et al. 2023): no data, no training, a backward pass per class.

    From the codes that `MnemonicCodes` trained the original with: n = F_f / F_r, the ratio of the mean squared gradients on
    the codes of forgotten and of retained classes; each tensor moves by s * n with s = min(lambda1, lambda2 / max n). Of both
    directions the one with the larger (1 - accuracy on forgotten codes) + accuracy on retained codes is kept. Runs in eval
    mode: there are too few images for statistics.

    Args:
        lambda1: Largest step per unit of n. The source has 1e-3 for MNIST, 1e-5 for CIFAR and STN, 1e-4 for CUB.
        lambda2: Largest step of any weight. The source has 10 for MNIST, 1e4 for CIFAR, 1 for CUB, 100 for STN.
        perturbation: `best` of both directions, as the source's code has it; `plus` or `minus`; `gaussian`: normal noise with
            the standard deviation s * n, as its text calls it.
        source: `codes`; or `data`: real forgotten and retained samples in their place, to compare with.
        samples: How many samples of each part `data` takes, random ones; None: all.
        parameters: What moves; None: all parameters.
    """

    view = "none"
    train_mode = False
    whole_classes = True

    def __init__(
        self,
        lambda1: float = 1e-3,
        lambda2: float = 10.0,
        perturbation: Perturbation = "best",
        source: Source = "codes",
        samples: int | None = 1000,
        parameters: ParameterSelector | None = None,
    ) -> None:
        super().__init__(max_epochs=0, parameters=parameters)
        if not (lambda1 > 0 and lambda2 > 0) or (samples is not None and samples < 1):
            raise ChainError(
                f"MnemonicForgetting: lambda1 is {lambda1}, lambda2 {lambda2}, samples {samples}; needed: all above 0."
            )
        if perturbation not in get_args(Perturbation) or source not in get_args(Source):
            raise ChainError(
                f"MnemonicForgetting: perturbation is {perturbation!r} and source {source!r}; needed: one of "
                f"{', '.join(get_args(Perturbation))}, and one of {', '.join(get_args(Source))}."
            )
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.perturbation = perturbation
        self.source = source
        self.samples = samples
        self._found: dict[str, dict[str, float]] = {}

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`; and codes of forgotten and of other classes, see `codes_for`.

        Args:
            classifier: The network.
            data: The data, split.
        """
        super().check(classifier, data)
        if self.source == "codes":
            codes_for(classifier, data.forgotten_classes)

    def on_fit_start(self) -> None:
        """Find the step, try the candidates, keep the best."""
        forget, retain = self._squares("forget"), self._squares("retain")
        own = dict(self.classifier.named_parameters())
        start = {name: own[name].detach().clone() for name in self.selected}
        steps = {name: forgetting_step(forget[name], retain[name], self.lambda1, self.lambda2) for name in self.selected}
        if self.perturbation == "gaussian":
            source = generator("mnemonic noise")
            steps = {name: step * torch.randn(step.shape, generator=source).to(step) for name, step in steps.items()}
        signs = {"best": (1.0, -1.0), "minus": (-1.0,)}.get(self.perturbation, (1.0,))
        scores = []
        for sign in signs:
            self._move(own, start, steps, sign)
            scores.append((self._accuracy("forget"), self._accuracy("retain")))
        # The first one where they are equal.
        best = max(range(len(signs)), key=lambda i: 1 - scores[i][0] + scores[i][1])
        self._move(own, start, steps, signs[best])
        self._found = {f"sign {sign:+.0f}": {"forget": f, "retain": r} for sign, (f, r) in zip(signs, scores, strict=True)}
        self._found["kept"] = {"sign": signs[best]}
        self.note, self.warning = judge_step(self.source, *scores[best], self.data.num_classes)

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Accuracies, 0 ... 1, after either step on what the step was found with, and the sign that was kept."""
        return self._found

    @staticmethod
    @torch.no_grad()
    def _move(own: Mapping[str, Tensor], start: Mapping[str, Tensor], steps: Mapping[str, Tensor], sign: float) -> None:
        for name, step in steps.items():
            own[name].copy_(start[name] + sign * step.to(start[name]))

    def _squares(self, part: Part) -> dict[str, Tensor]:
        """Mean squared gradients on codes, or samples, of a part."""
        if self.source == "data":
            return mean_fisher(self, part, self.samples)
        [(images, labels)] = self._batches(part)
        return mean_squared_gradient(self.classifier, images, labels, self.selected)

    @torch.no_grad()
    def _accuracy(self, part: Part) -> float:
        """On codes, or samples, of a part, 0 ... 1."""
        right = [self.classifier(x).argmax(1) == labels for x, labels in self._batches(part)]
        counts = torch.tensor([sum(int(r.sum()) for r in right), sum(len(r) for r in right)], device=self.device)
        # All ranks look at the same codes, and each at samples of its own.
        counts = counts if self.source == "codes" else sum_over_ranks(counts, self.trainer)
        return float(counts[0] / counts[1])

    def _batches(self, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
        if self.source == "data":
            # Those of the Fisher.
            chosen = self.data.random_part(part, self.samples, "fisher", run_seed())
            for batch in self.data.evaluation_loader(part, chosen):
                batch = self.trainer.precision_plugin.convert_input(batch)
                yield batch.input, batch.target
            return
        classes = self.data.forgotten_classes
        codes = codes_for(self.classifier, classes)
        codes = codes.of(classes) if part == "forget" else codes.without(classes)
        dtype = next(self.classifier.parameters()).dtype
        yield codes.images.to(self.device, dtype), codes.labels.to(self.device)
