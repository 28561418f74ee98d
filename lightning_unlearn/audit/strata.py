"""Parts of the audited samples that are judged on their own: an average hides whom a method fails."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.report.audit_schema import WHOLE

__all__ = ["Stratum", "of_remaining_classes", "strata_of"]

# Fewer samples are no stratum.
FEWEST = 5
# Share of the forgotten samples that are called hardest, or most memorised.
SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Stratum:
    """Samples of one part of the answers.

    Attributes:
        name: In words.
        part: Key of `Answers.margins`.
        mask: Which of the part's samples, (N,), bool.
    """

    name: str
    part: str
    mask: Tensor

    def of(self, answers: Answers) -> Tensor:
        """Margins of these samples, (M, n), float64."""
        return answers.margins[self.part][:, self.mask]


def strata_of(
    data: UnlearningDataModule,
    forget: Tensor,
    answers: Answers,
    held_out: Answers | None,
    originals: Answers | None,
    relearn_epochs: int = 0,
) -> list[Stratum]:
    """The strata of a forget set; those that need models or labels that are not there are left out.

    Hardness and memorisation are measured on held-out references, never on the references that methods are compared with: a
    sample chosen because those very models are unsure of it would look remembered.

    Args:
        data: The data.
        forget: Indices of the audited forgotten samples, (N,), int64.
        answers: Of any group, for what it was asked: retained samples, 8-bit weights, after fine-tuning.
        held_out: Answers of held-out references.
        originals: Answers of originals.
        relearn_epochs: Epochs of retain-only fine-tuning, for the name.

    Returns:
        All forgotten samples first.
    """
    samples, _ = data.part("forget")
    n = len(forget)
    every = torch.ones(n, dtype=torch.bool)
    found = [Stratum(WHOLE, "forget", every)]
    if held_out is not None:
        found.append(Stratum("hardest quarter", "forget", _top(-held_out.margins["forget"].mean(0))))
    if held_out is not None and originals is not None:
        memorisation = originals.correct["forget"].double().mean(0) - held_out.correct["forget"].double().mean(0)
        found.append(Stratum("most memorised quarter", "forget", _top(memorisation)))
    targets = samples.targets[forget]
    if samples.true_targets is not None:
        found.append(Stratum("mislabelled", "forget", targets != samples.true_targets[forget]))
    for label, name in enumerate(data.dataset.classes):
        found.append(Stratum(f"class {name}", "forget", targets == label))
    found = [s for s in found if FEWEST <= int(s.mask.sum()) < n or s.name == WHOLE]
    if "retain" in answers.margins:
        found.append(Stratum("retained", "retain", torch.ones(answers.margins["retain"].shape[1], dtype=torch.bool)))
    for part, name in (("relearned", f"after {relearn_epochs} epochs on retained samples alone"), ("int8", "int8 weights")):
        if f"forget/{part}" in answers.margins:
            found.append(Stratum(f"{WHOLE}, {name}", f"forget/{part}", every))
    return found


def of_remaining_classes(data: UnlearningDataModule, test: Tensor) -> Tensor | None:
    """Which test samples accuracy is measured on where whole classes are forgotten, as in a screen.

    Args:
        data: The data, split.
        test: Indices of the audited test samples, (N,), int64.

    Returns:
        Those of classes of which some sample is retained, (N,), bool; None: all.
    """
    samples, _ = data.part("test")
    stays = ~torch.isin(samples.targets[test], data.gone_classes)
    return stays if bool(stays.any()) and not bool(stays.all()) else None


def _top(scores: Tensor) -> Tensor:
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[scores.argsort(descending=True, stable=True)[: round(SHARE * len(scores))]] = True
    return mask
