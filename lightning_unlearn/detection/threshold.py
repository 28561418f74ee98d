"""Where suspects begin."""

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.data.by_score import check_highest, count_above
from lightning_unlearn.exceptions import ConfigError

__all__ = ["Threshold", "positive"]


def positive(values: Tensor) -> Tensor:
    """Scores that have a logarithm. A loss of exactly 0 stands with the smallest: its own logarithm would decide alone.

    Args:
        values: (N,), 0 or more.

    Returns:
        (N,), the smallest positive value in place of less; ones where there is none.
    """
    above = values[values > 0]
    return values.clamp(min=above.min()) if len(above) else torch.ones_like(values)


@dataclass(frozen=True)
class Threshold:
    """Which scores are suspect: so many of the highest, those above a quantile, or the upper part of a mixture of two.

    The mixture is of two normal distributions, fitted to the scores (after a logarithm, for scores that spread over orders of
    magnitude), as Arazo et al. 2019 (ICML) do with losses and beta distributions: those that more likely come from the upper
    one are suspect. Where there are few wrong labels, or none, it still finds two parts: look at the histogram.

    Attributes:
        count: How many, at least 1.
        quantile: Those above this quantile of the scores, in (0, 1): 0.9 gives the highest tenth.

    Raises:
        ConfigError: Both are given, or one is out of range.
    """

    count: int | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.quantile is not None:
            raise ConfigError(f"Both count {self.count} and quantile {self.quantile} were given; needed: one of them, or none.")
        check_highest(self.count, self.quantile, ConfigError)

    def describe(self) -> str:
        """One plain line."""
        if self.count is not None:
            return f"the {self.count} highest"
        return "the upper part of a mixture of two" if self.quantile is None else f"above the quantile {self.quantile:g}"

    def suspected(self, scores: Tensor, log: bool = False) -> Tensor:
        """Apply it.

        Args:
            scores: (N,), NaN for samples without one, which are never suspect.
            log: Whether the mixture is fitted to logarithms; scores are then 0 or more.

        Returns:
            (N,), bool.

        Raises:
            ConfigError: As many are asked for as there are, or more.
        """
        known = ~scores.isnan()
        values = scores[known].double()
        chosen = torch.zeros(len(scores), dtype=torch.bool)
        count = self.count if self.quantile is None else count_above(self.quantile, len(values))
        if count is None:
            chosen[known] = _upper_part(values, log)
            return chosen
        if self.count is not None and count >= len(values):
            raise ConfigError(f"count is {count}, and {len(values)} samples have scores; needed: fewer, or all are suspected.")
        above = torch.zeros(len(values), dtype=torch.bool)
        above[torch.argsort(values, stable=True, descending=True)[:count]] = True
        chosen[known] = above
        return chosen


def _upper_part(values: Tensor, log: bool) -> Tensor:
    points = positive(values).log() if log else values
    if len(points) < 2 or bool(points.min() == points.max()):
        return torch.zeros(len(points), dtype=torch.bool)
    # Without this the unit of a score would decide what the library's regularisation of variances means.
    points = (points - points.mean()) / points.std()
    mixture = importlib.import_module("sklearn.mixture").GaussianMixture(2, random_state=0)
    belongs = torch.from_numpy(mixture.fit(points[:, None].numpy()).predict_proba(points[:, None].numpy()))
    upper, lower = int(mixture.means_[:, 0].argmax()), int(mixture.means_[:, 0].argmin())
    # A wide upper part is also the likelier one far below the lower part's mean.
    return (belongs[:, upper] > 0.5) & (points > float(mixture.means_[lower, 0]))
