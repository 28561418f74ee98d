"""What a repaired model is compared with: models that were trained otherwise, on the same samples."""

from collections.abc import Sequence
from dataclasses import replace

from lightning.pytorch import LightningModule

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.whole import whole

__all__ = ["SMOOTHING", "TRUE_LABELS", "Trained", "baselines", "smoothed", "with_true_labels"]

TRUE_LABELS = "trained on true labels"
# The usual value (Szegedy et al. 2016, CVPR).
SMOOTHING = 0.1

# Name, seed, model.
Trained = tuple[str, int, LightningModule]


def with_true_labels(data: UnlearningDataModule) -> UnlearningDataModule | None:
    """The same training samples with the labels that they had before noise, and nothing to forget.

    Args:
        data: The data; they are not changed.

    Returns:
        A copy that shares the images; None where no truth is known.
    """
    if data.samples.true_targets is None:
        return None
    other = whole(data)
    other.samples = replace(data.samples, targets=data.samples.true_targets, true_targets=None)
    return other


def smoothed(recipe: Recipe) -> Recipe | None:
    """The same recipe with label smoothing (Szegedy et al. 2016), which does without knowing which labels are wrong.

    Args:
        recipe: Of originals.

    Returns:
        The recipe; None where its model is not a `Classifier`, or smooths already.
    """
    model = recipe.build(0)
    if not isinstance(model, Classifier) or model.label_smoothing:
        return None

    def build() -> LightningModule:
        made = recipe.model()
        assert isinstance(made, Classifier)
        made.label_smoothing = SMOOTHING
        # What the bank and a checkpoint know of a model.
        made.hparams["label_smoothing"] = SMOOTHING
        return made

    return replace(recipe, model=build)


def baselines(bank: Bank, recipe: Recipe, data: UnlearningDataModule, seeds: Sequence[int]) -> list[Trained]:
    """Models that stand beside the original and the references where labels are repaired, from the bank or trained now.

    Trained on all samples with their true labels, where they are known: what could be reached if every wrong label were put
    right. And trained with label smoothing on the labels as they are: what could have been done beforehand.

    Args:
        bank: Where they are found, or kept.
        recipe: Of originals.
        data: The data; they need not be split.
        seeds: Those of the originals: the same first weights and order.

    Returns:
        The models; none depends on the forget rule.
    """
    found: list[Trained] = []
    truth, smooth = with_true_labels(data), smoothed(recipe)
    if truth is not None:
        found += [(TRUE_LABELS, seed, bank.trained(recipe, truth, "train", seed)) for seed in seeds]
    if smooth is not None:
        name = f"label smoothing {SMOOTHING}"
        found += [(name, seed, bank.trained(smooth, whole(data), "train", seed)) for seed in seeds]
    return found
