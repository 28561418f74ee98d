"""Teach corrected labels for what is forgotten."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.suspected import SuspectedMislabels, read_suggested
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages.imitate_unseen import ImitateUnseen

__all__ = ["Relabel"]


class Relabel(ImitateUnseen):
    """Fine-tuning with suggested labels on the forgotten samples, and with their own on the retained ones.

    After the closing thought of Triantafillou et al. 2024 (NeurIPS 2023 challenge), that a model should learn that something
    is wrong rather than forget it. The suggested label is the most likely class of the targets that `EstimateUnseen` left; with
    `Neighbours` alone and without calibration, that of most of the nearest retained samples. Compare them at the pixels or in a
    middle layer: what enters the head of a network that learnt a wrong label by heart repeats that label. Or it comes from a
    file of `detect`, which a person may have corrected.

    Args:
        suggestions: `scores.csv` of a run of `detect`, whose column `suggested` holds the labels; `rule`: the file of the
            forget rule `SuspectedMislabels`. None: the targets of an `EstimateUnseen` before this stage.
        **kwargs: See `ImitateUnseen`; `margin_weight` and `correction` must be 0.
    """

    note = "Labels of forgotten samples were replaced by suggested ones, so a reference that never saw them is not the aim."

    def __init__(self, suggestions: str | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if self.margin_weight > 0 or self.correction > 0:
            raise ChainError(
                f"Relabel: margin_weight is {self.margin_weight} and correction {self.correction}; needed: 0 each, for labels "
                "have no odds."
            )
        self.suggestions = suggestions
        if suggestions is not None:
            self.requires = ()

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """See `UnlearningStage.check`: every forgotten sample needs a suggestion."""
        super().check(classifier, data)
        if self.suggestions is not None:
            self._suggested(data)

    def passes_for(self, data: UnlearningDataModule) -> int:
        """See `ImitateUnseen.passes_for`: corrected labels are learnt like any."""
        return self.passes

    def on_fit_start(self) -> None:
        """Make labels of the targets: with all probability on one class, the divergence is the cross-entropy."""
        if self.suggestions is not None:
            index = self.data.part("forget")[1]
            self.artifacts["targets"] = {
                "index": index,
                "probabilities": F.one_hot(self._suggested(self.data), self.num_classes).float(),
                "class_gone": torch.zeros(len(index), dtype=torch.bool),
            }
        super().on_fit_start()
        self._targets = F.one_hot(self._targets.argmax(1), self.num_classes).to(self._targets)

    def _suggested(self, data: UnlearningDataModule) -> Tensor:
        """Suggested labels of the forgotten samples, (F,)."""
        path = self.suggestions
        if path == "rule":
            if not isinstance(data.forget_rule, SuspectedMislabels):
                raise ChainError(
                    f"Relabel: suggestions is 'rule', and the forget rule is {type(data.forget_rule).__name__}; needed: "
                    "SuspectedMislabels with the scores.csv of a run of detect, or the path of such a file."
                )
            path = str(data.forget_rule.path)
        assert path is not None
        samples, index = data.part("forget")
        labels = read_suggested(path, samples.keys, data.dataset.classes)[index]
        missing = int((labels < 0).sum())
        if missing:
            raise ChainError(
                f"Relabel: {path} suggests no label for {missing} of {len(index)} forgotten samples. Give a file of detect on "
                "these data, or leave `suggestions` out and put EstimateUnseen before this stage."
            )
        return labels
