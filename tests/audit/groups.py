"""Answers of models that never were: margins drawn from known distributions."""

import torch

from lightning_unlearn.audit.answers import Answers

SIZES = {"forget": 40, "retain": 50, "test": 60, "unseen": 30}


def relearned(models, seed):
    """Answers of models that are all the same but for their seeds, named as those after fine-tuning."""
    return group(models, seed=seed, parts=("forget", "test", "unseen")).renamed("relearned")


def group(models, shift=0.0, seed=0, parts=tuple(SIZES), shifted=None):
    """Margins of models that differ by their seeds; those of forgotten samples are `shift` higher.

    Args:
        models: How many.
        shift: Of the margins of forgotten samples, in standard deviations.
        seed: Of the draw.
        parts: Parts that they answered to.
        shifted: Which forgotten samples are shifted, bool; None: all.

    Returns:
        Answers.
    """
    source = torch.Generator().manual_seed(seed)
    hardness = torch.Generator().manual_seed(99)
    margins = {}
    for part, n in SIZES.items():
        base = torch.randn(n, generator=hardness, dtype=torch.float64)
        drawn = base + torch.randn(models, n, generator=source, dtype=torch.float64)
        if part == "forget":
            drawn += shift * (torch.ones(n) if shifted is None else shifted.double())
        if part in parts:
            margins[part] = drawn
    return Answers(margins, {part: values > 0 for part, values in margins.items()}, {})
