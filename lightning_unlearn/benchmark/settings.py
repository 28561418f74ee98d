"""Trainings that a benchmark compares: shares of wrong labels, and lengths."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_unlearn.bank.bank import Recipe
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.exceptions import ConfigError

__all__ = ["Setting", "check_settings", "training_settings"]


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        name: In words; empty where there is only one.
        data: The data, with the setting's label noise.
        recipe: How originals and references are trained.
    """

    name: str
    data: UnlearningDataModule
    recipe: Recipe


def check_settings(data: UnlearningDataModule, noise_fractions: Sequence[float], epochs: Sequence[int]) -> None:
    """Refuse settings that cannot be trained, before anything is computed.

    Args:
        data: The data.
        noise_fractions: See `training_settings`.
        epochs: See `training_settings`.

    Raises:
        ConfigError: There is no label noise whose share could be changed, an epoch number is below 1, or one stands twice.
    """
    if noise_fractions and data.label_noise is None:
        raise ConfigError(
            f"noise_fractions is {list(noise_fractions)}, but the data have no label noise, whose kind and seed they would "
            "share. Give --data.label_noise LabelNoise --data.label_noise.fraction 0.2."
        )
    wrong = [n for n in noise_fractions if not 0 < n <= 1] + [n for n in epochs if n < 1]
    if wrong or len(set(noise_fractions)) < len(noise_fractions) or len(set(epochs)) < len(epochs):
        raise ConfigError(
            f"noise_fractions is {list(noise_fractions)} and epochs {list(epochs)}; needed: different shares above 0, at most "
            "1, and different numbers of 1 or more."
        )


def training_settings(
    data: UnlearningDataModule, recipe: Recipe, noise_fractions: Sequence[float] = (), epochs: Sequence[int] = ()
) -> list[Setting]:
    """Every share of wrong labels with every length.

    Args:
        data: The data, with their label noise.
        recipe: How originals and references are trained.
        noise_fractions: Fractions in place of that of the data's `LabelNoise`; none: as it is.
        epochs: Epochs in place of the recipe's; none: those.

    Returns:
        Settings; where nothing is given, one without a name.
    """
    found = []
    fractions: Sequence[float | None] = noise_fractions or [None]
    lengths: Sequence[int | None] = epochs or [None]
    for fraction in fractions:
        for length in lengths:
            words = [] if fraction is None else [f"{100 * fraction:.4g} % wrong labels"]
            words += [] if length is None else [f"{length} epochs"]
            other = data if fraction is None else _with_noise(data, fraction)
            found.append(Setting(", ".join(words), other, recipe if length is None else replace(recipe, max_epochs=length)))
    return found


def _with_noise(data: UnlearningDataModule, fraction: float) -> UnlearningDataModule:
    assert data.label_noise is not None
    other = copy.copy(data)
    other.set_noise(replace(data.label_noise, fraction=fraction))
    other._reset_split()
    return other
