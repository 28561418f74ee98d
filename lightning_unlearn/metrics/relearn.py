"""Whether what was forgotten comes back: measured on outputs after fine-tuning runs of their own."""

from collections.abc import Sequence

from lightning_unlearn.metrics.pairing import check_same_samples
from lightning_unlearn.outputs import Outputs

__all__ = ["relearn_gap", "relearn_time"]


def relearn_gap(unlearned_after: Outputs, reference_after: Outputs) -> float:
    """Forget accuracy after fine-tuning on D_r alone, minus that of the reference after the same fine-tuning.

    A memory that was only covered comes back without its samples being shown again (arXiv 2505.22310).

    Args:
        unlearned_after: Of the unlearned model after the fine-tuning.
        reference_after: Of the reference after the fine-tuning.

    Returns:
        Points, -100 ... 100; the aim is 0, above it the memory came back.
    """
    check_same_samples(unlearned_after.forget, reference_after.forget, "forget")
    return 100 * (unlearned_after.forget.accuracy - reference_after.forget.accuracy)


def relearn_time(accuracies: Sequence[float], target: float) -> int | None:
    """Steps of fine-tuning on D_f until its accuracy is back.

    Args:
        accuracies: Forget accuracy after 0, 1, 2, ... steps.
        target: The accuracy to reach, in the same unit.

    Returns:
        The first number of steps at which the target is reached, or None: not reached within len(accuracies)
        - 1 steps, a censored value that is longer than any reached one and must not enter a mean as a number.
    """
    return next((step for step, accuracy in enumerate(accuracies) if accuracy >= target), None)
