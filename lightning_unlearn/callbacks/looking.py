"""What callbacks that watch a fit look at: answers to a part of the data, and weights to come back to.

On several ranks all of them look at the first one's network: statistics of BatchNorm differ between ranks within an epoch.
"""

from typing import cast

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_unlearn.callbacks.rank_statistics import share_buffers
from lightning_unlearn.callbacks.weight_edit import EditedStage
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ConfigError

__all__ = ["answers", "check_budget", "data_of", "retain_accuracy", "weights_of"]


def data_of(trainer: Trainer) -> UnlearningDataModule:
    """The DataModule of the running fit.

    Args:
        trainer: The Trainer.

    Returns:
        The DataModule.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
    assert isinstance(data, UnlearningDataModule)
    return data


def answers(trainer: Trainer, stage: LightningModule, part: Part, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits of the classifier as it is now, in eval mode, un-augmented; its modes are put back.

    Args:
        trainer: Runs the fit.
        stage: Its classifier answers.
        part: Part of the data; never `test`.
        index: Which of its samples, sorted; None: all.

    Returns:
        Logits (N, K), at least float32, the same on every rank, and labels (N,), both on the stage's device.
    """
    samples, every = data_of(trainer).part(part)
    chosen = every if index is None else index
    classifier = cast(EditedStage, stage).classifier
    share_buffers(classifier, trainer)
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    loader = data_of(trainer).evaluation_loader(part, chosen)
    try:
        logits = collect(lambda batch: classifier(batch.input), loader, chosen, trainer)
    finally:
        for module, training in modes:
            module.training = training
    return logits if logits.dtype.itemsize > 4 else logits.float(), samples.targets[chosen].to(logits.device)


def retain_accuracy(trainer: Trainer, stage: LightningModule, samples: int) -> float:
    """Accuracy on a fixed random part of the retained samples.

    Args:
        trainer: Runs the fit.
        stage: Its classifier answers.
        samples: How many.

    Returns:
        Percent.
    """
    logits, targets = answers(trainer, stage, "retain", data_of(trainer).random_part("retain", samples, "retain budget"))
    return 100 * float((logits.argmax(1) == targets).double().mean())


def check_budget(owner: str, max_retain_drop: float, samples: int = 1) -> None:
    """Refuse a budget on retain accuracy that is none.

    Args:
        owner: Whose it is, for the message.
        max_retain_drop: Points of accuracy that may be lost.
        samples: Retained samples that are looked at.

    Raises:
        ConfigError: It is not within 0 ... 100, or no sample is looked at.
    """
    if not 0 <= max_retain_drop <= 100:
        raise ConfigError(f"{owner}: max_retain_drop is {max_retain_drop}; needed: 0 to 100 points.")
    if samples < 1:
        raise ConfigError(f"{owner}: samples is {samples}; needed: at least 1.")


def weights_of(stage: LightningModule) -> dict[str, Tensor]:
    """A copy of the classifier's weights and buffers.

    Args:
        stage: The stage, within its fit.

    Returns:
        By name, where they are, the same on every rank.
    """
    classifier = cast(EditedStage, stage).classifier
    share_buffers(classifier, stage.trainer)
    state = classifier.state_dict()
    return {name: value.detach().clone() for name, value in state.items()}
