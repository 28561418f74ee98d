"""A forget rule for `benchmark`: what a detection on each original suspects."""

from collections.abc import Sequence

from torch import Tensor

from lightning_unlearn.data.forget import ForgetRule, Selection
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

__all__ = ["DetectedMislabels"]


class DetectedMislabels(ForgetRule):
    """The samples whose label a detection on the original suspects, in `benchmark`: each original has a forget set of its own.

    Elsewhere run `detect` and give its file to `SuspectedMislabels`.

    Args:
        score: The score that decides, one of those of `detect` that need no further training.
        count: So many of the highest scores.
        quantile: Those above this quantile of the scores, in (0, 1): 0.9 chooses the highest tenth (Sugiura et al. 2024). With
            neither: the upper part of a mixture of two.
    """

    def __init__(self, score: str = "aum", count: int | None = None, quantile: float | None = None) -> None:
        self.score = score
        self.count = count
        self.quantile = quantile

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """Refused: it needs an original; see `ForgetRule.select`."""
        raise DataError(
            "DetectedMislabels looks at originals, which only `benchmark` trains. Give it in --rules of benchmark; elsewhere "
            "run detect and give its scores.csv to SuspectedMislabels."
        )

    def describe(self) -> str:
        """One plain line."""
        size = "" if self.count is None else f"the {self.count} highest "
        return f"labels suspected by {size}{self.score}" + (f" above {self.quantile:g}" if self.quantile is not None else "")
