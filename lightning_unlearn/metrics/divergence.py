"""How far the predictions of an unlearned model are from a reference's, sample by sample.

Per sample, because a model can match the distribution of a reference's outputs and still know which samples
it saw.
"""

import math

import torch
from torch import Tensor

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.divergences import jensen_shannon, kl_divergence
from lightning_unlearn.metrics.pairing import check_same_samples
from lightning_unlearn.metrics.per_sample import PerSampleMetric
from lightning_unlearn.outputs import PartOutputs

__all__ = [
    "JensenShannonToReference",
    "ZeroRetrainForgetting",
    "js_to_reference",
    "kl_to_reference",
    "zero_retrain_forgetting",
]


def js_to_reference(unlearned: PartOutputs, reference: PartOutputs) -> Tensor:
    """Jensen-Shannon divergence between two models on each sample, m = (p + q) / 2, natural logarithm.

    Args:
        unlearned: Of the unlearned model.
        reference: Of the reference, on the same samples.

    Returns:
        (N,), float64, in 0 ... log 2.
    """
    check_same_samples(unlearned, reference)
    return jensen_shannon(unlearned.logits, reference.logits)


def kl_to_reference(unlearned: PartOutputs, reference: PartOutputs) -> Tensor:
    """KL(p_reference || p_unlearned) on each sample.

    Args:
        unlearned: Of the unlearned model.
        reference: Of the reference, on the same samples.

    Returns:
        (N,), float64, nats, >= 0 up to rounding.
    """
    check_same_samples(unlearned, reference)
    return kl_divergence(reference.logits.double().log_softmax(1), unlearned.logits.double().log_softmax(1))


def zero_retrain_forgetting(unlearned: PartOutputs, random: PartOutputs) -> float:
    """ZRF = 1 - mean JS(p_unlearned, p_random network) / log 2 on D_f (Chundawat et al., AAAI 2023).

    Args:
        unlearned: Of the unlearned model on D_f.
        random: Of a network with random weights, on the same samples.

    Returns:
        0 ... 1; 1 predicts like the random network, but the aim is the reference's value.
    """
    return 1 - float(js_to_reference(unlearned, random).mean()) / math.log(2)


class JensenShannonToReference(PerSampleMetric):
    """Mean Jensen-Shannon divergence to a reference's stored outputs, in nats: 0 ... log 2, lower is better.

    Args:
        reference: Outputs of the reference on every sample that will be seen.
    """

    higher_is_better: bool | None = False
    reference_logits: Tensor
    reference_index: Tensor

    def __init__(self, reference: PartOutputs) -> None:
        super().__init__()
        self.register_buffer("reference_logits", reference.logits, persistent=False)
        self.register_buffer("reference_index", reference.index, persistent=False)

    def per_sample(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """The divergence of each sample.

        Args:
            logits: (B, K).
            targets: Labels, (B,), int64; not used.
            index: Sample indices, (B,), int64.

        Returns:
            (B,), float64, in 0 ... log 2.

        Raises:
            DataError: The reference has no outputs of one of the samples.
        """
        at = torch.searchsorted(self.reference_index, index).clamp_max(len(self.reference_index) - 1)
        missing = self.reference_index[at] != index
        if bool(missing.any()):
            raise DataError(
                f"The reference has no outputs of {int(missing.sum())} of {len(index)} samples; "
                "needed: outputs of the reference on the same part of the same split."
            )
        return jensen_shannon(logits, self.reference_logits[at])


class ZeroRetrainForgetting(JensenShannonToReference):
    """ZRF as a metric that can be logged, 0 ... 1; the aim is the reference's value, so `higher_is_better` is None.

    Args:
        reference: Outputs of a network with random weights on D_f.
    """

    higher_is_better: bool | None = None

    def compute(self) -> Tensor:
        """1 - mean divergence / log 2 over distinct samples.

        Returns:
            A scalar, float64; NaN where no sample was added.
        """
        return 1 - super().compute() / math.log(2)
