"""What a detection found, and the file that it leaves."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_unlearn.data.suspected import label_names
from lightning_unlearn.data.tables import write_rows
from lightning_unlearn.functional.label_scores import Decision, auroc, decision

__all__ = ["Detection", "Scored"]


@dataclass(frozen=True)
class Scored:
    """One score of all samples.

    Attributes:
        title: What it is.
        values: (N,), float64, high where the label is suspect; NaN for samples without one.
        suspected: (N,), bool.
        seconds: What it took, passes that it shares with other scores included.
        threshold: Where suspects begin, in words.
        log: Whether it spreads over orders of magnitude.
    """

    title: str
    values: Tensor
    suspected: Tensor
    seconds: float
    threshold: str
    log: bool = False


@dataclass(frozen=True)
class Detection:
    """Scores of the samples that a model was trained on.

    Attributes:
        keys: Their keys.
        index: Their sample indices, (N,), int64.
        classes: Names of the classes.
        labels: Given labels, (N,), int64.
        suggested: For each the most likely class besides the given label, (N,), int64.
        true_labels: The truth where it is known, (N,), int64; else None.
        scores: By name; the first decides who is suspected.
    """

    keys: list[str]
    index: Tensor
    classes: list[str]
    labels: Tensor
    suggested: Tensor
    true_labels: Tensor | None
    scores: dict[str, Scored]

    @property
    def decided_by(self) -> str:
        """Name of the score that decides."""
        return next(iter(self.scores))

    @property
    def suspected(self) -> Tensor:
        """Who is suspected, (N,), bool."""
        return self.scores[self.decided_by].suspected

    @property
    def wrong(self) -> Tensor | None:
        """Whose label is wrong, (N,), bool; None where the truth is not known."""
        return None if self.true_labels is None else self.labels != self.true_labels

    def most_suspect(self, count: int) -> Tensor:
        """The samples that the deciding score puts first.

        Args:
            count: How many at most.

        Returns:
            Positions in `keys`, the most suspect one first.
        """
        values = self.scores[self.decided_by].values.nan_to_num(nan=-torch.inf)
        return torch.argsort(values, stable=True, descending=True)[:count]

    def auroc(self, name: str) -> float:
        """How well a score tells wrong labels from right ones.

        Args:
            name: The score.

        Returns:
            0 ... 1; NaN where the truth is not known, or there are no wrong labels or only such.
        """
        if self.wrong is None:
            return float("nan")
        known = ~self.scores[name].values.isnan()
        return auroc(self.scores[name].values[known], self.wrong[known])

    def decision(self, name: str) -> Decision:
        """How right a score's suspects are.

        Args:
            name: The score.

        Returns:
            Precision, recall and F1; NaN where the truth is not known.
        """
        if self.wrong is None:
            return Decision(float("nan"), float("nan"), float("nan"))
        return decision(self.scores[name].suspected, self.wrong)

    @property
    def suggestion_accuracy(self) -> float:
        """Part of the wrong labels whose suggestion is the true one; NaN where the truth is not known, or no label is wrong."""
        if self.true_labels is None or self.wrong is None or not bool(self.wrong.any()):
            return float("nan")
        return float((self.suggested == self.true_labels)[self.wrong].float().mean())

    def save(self, path: str | Path) -> None:
        """Write a table that the rules `SuspectedMislabels` and `ByScore` and the stage `Relabel` read.

        Args:
            path: A `.csv` file: `key`, `index`, a column for each score with all its digits (empty: none), `label`,
                `suggested` and `suspected` (1 or 0).
        """
        names = label_names(self.classes)
        rows: list[list[object]] = [["key", "index", *self.scores, "label", "suggested", "suspected"]]
        columns = [scored.values.tolist() for scored in self.scores.values()]
        others = zip(self.labels.tolist(), self.suggested.tolist(), self.suspected.tolist(), strict=True)
        for row, (key, index, about) in enumerate(zip(self.keys, self.index.tolist(), others, strict=True)):
            values = ["" if column[row] != column[row] else repr(column[row]) for column in columns]
            rows.append([key, index, *values, names[about[0]], names[about[1]], int(about[2])])
        write_rows(path, rows)
