"""Teach corrected labels for what is forgotten."""

import torch.nn.functional as F

from lightning_unlearn.stages.imitate_unseen import ImitateUnseen

__all__ = ["Relabel"]


class Relabel(ImitateUnseen):
    """Fine-tuning with suggested labels on the forgotten samples, and with their own on the retained ones.

    After the closing thought of Triantafillou et al. 2024 (NeurIPS 2023 challenge), that a model should learn that something
    is wrong rather than forget it. The suggested label is the most likely class of the targets that `EstimateUnseen` left; with
    `Neighbours` alone and without calibration, that of most of the nearest retained samples. Compare them at the pixels or in a
    middle layer: what enters the head of a network that learnt a wrong label by heart repeats that label.

    Args:
        **kwargs: See `ImitateUnseen`.
    """

    note = "Labels of forgotten samples were replaced by suggested ones, so a reference that never saw them is not the aim."

    def on_fit_start(self) -> None:
        """Make labels of the targets: with all probability on one class, the divergence is the cross-entropy."""
        super().on_fit_start()
        self._targets = F.one_hot(self._targets.argmax(1), self.num_classes).to(self._targets)
