"""Train the end of the network anew, beside it, without the forgotten samples."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import generator
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.reset_layers import reset_modules

__all__ = ["TrainSurrogate"]


class TrainSurrogate(FineTune):
    """Trains a surrogate, whose last layers never saw the forgotten samples; the network stays as it is (this project).

    The surrogate is a copy whose last layers start from new weights and are trained on retained samples alone, as in EU-k (Goel
    et al. 2022). Its beginning still knows the forgotten samples, so it knows them better than unseen ones. Therefore some
    retained samples are held out: to the surrogate they are what the forgotten ones are, known to its beginning and not to its
    end. `EstimateUnseen` ranks the forgotten samples among them.

    Artifacts: `surrogate`, its weights and buffers by name; `held_out` with `index` (M,), the samples held out. A request of
    whole classes alone needs no surrogate: nothing is trained then, and `surrogate` is empty.

    Args:
        held_out_samples: Retained samples that are held out, a random part, at most a quarter of them.
        parameters: What is trained anew; None: last stage and head. `reset_modules` says how.
        **kwargs: See `CachedStage`.
    """

    prepares = False
    provides = ("surrogate", "held_out")

    def __init__(self, held_out_samples: int = 600, parameters: ParameterSelector | None = None, **kwargs: object) -> None:
        if held_out_samples < 2:
            raise ChainError(
                f"TrainSurrogate: held_out_samples is {held_out_samples}; needed: at least 2, among which others are ranked."
            )
        selector = ParameterSelector(parts=["last_stage", "head"]) if parameters is None else parameters
        super().__init__(parameters=selector, **kwargs)  # type: ignore[arg-type]  # typed in the base class
        self.held_out_samples = held_out_samples
        self._held_out = torch.empty(0, dtype=torch.int64)

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`; and that a part can be held out.

        Args:
            classifier: The network.
            data: The data, split.

        Raises:
            ChainError: There are too few retained samples.
        """
        super().check(classifier, data)
        retained = len(data.part("retain")[1])
        if retained < 8 and not data.forgets_whole_classes:
            raise ChainError(f"TrainSurrogate: {retained} samples are retained; needed: at least 8, to hold two of them out.")

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """See `UnlearningStage.bind`: a copy with new weights takes the network's place.

        Args:
            classifier: The network; stays as it is.
            artifacts: What earlier stages left.
        """
        super().bind(copy.deepcopy(classifier), artifacts)
        reset_modules(self.classifier, set(self.selected), generator("surrogate"), redraw=True)

    def before_fit(self, fresh: Callable[..., Trainer], data: UnlearningDataModule) -> None:
        """Hold samples out.

        Args:
            fresh: Makes a Trainer.
            data: The data.
        """
        retain = data.part("retain")[1]
        self._held_out = data.random_part("retain", min(self.held_out_samples, len(retain) // 4), "estimate")
        data.serving = replace(data.serving, only=retain[~torch.isin(retain, self._held_out)])

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """See `UnlearningStage.length`: nothing where whole classes alone are forgotten."""
        return (0, -1) if data.forgets_whole_classes else super().length(data)

    def on_fit_start(self) -> None:
        """Compute the features."""
        if not self.data.forgets_whole_classes:
            super().on_fit_start()

    def on_fit_end(self) -> None:
        """Leave the surrogate."""
        # By parameters and buffers, not as a state dict: that names shared ones twice.
        weights = {**dict(self.classifier.named_parameters()), **dict(self.classifier.named_buffers())}
        self.artifacts["surrogate"] = {} if self.data.forgets_whole_classes else weights
        self.artifacts["held_out"] = {"index": self._held_out}
