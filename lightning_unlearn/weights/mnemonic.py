"""Mnemonic codes: one random image per class that a model learnt with its data, and that stays with the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_unlearn.exceptions import CheckpointError

__all__ = ["CODES_KEY", "Codes", "codes_for", "codes_of", "draw_codes", "give_codes", "judge_step"]

# What a checkpoint calls them among the states of callbacks.
CODES_KEY = "MnemonicCodes"
# Not a buffer: weights keep their names, whoever trained them with codes or without.
_ATTRIBUTE = "mnemonic_codes"


@dataclass(frozen=True)
class Codes:
    """The codes of classes.

    Attributes:
        images: (M, C, H, W), float32, in the space of the network's input: as it is after normalisation.
        labels: Their classes, (M,), int64, each once.
    """

    images: Tensor
    labels: Tensor

    def of(self, classes: Sequence[int]) -> "Codes":
        """The codes of some classes.

        Args:
            classes: Labels; those without a code are left out.

        Returns:
            Their codes.
        """
        chosen = torch.isin(self.labels, torch.tensor(classes, dtype=torch.int64))
        return Codes(self.images[chosen], self.labels[chosen])

    def without(self, classes: Sequence[int]) -> "Codes":
        """The codes of all other classes.

        Args:
            classes: Labels.

        Returns:
            Their codes.
        """
        chosen = ~torch.isin(self.labels, torch.tensor(classes, dtype=torch.int64))
        return Codes(self.images[chosen], self.labels[chosen])

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps.

        Returns:
            Tensors by name.
        """
        return {"images": self.images, "labels": self.labels}

    @classmethod
    def from_state(cls, state: object) -> "Codes | None":
        """Codes of what `state_dict` gave.

        Args:
            state: Anything that a checkpoint held.

        Returns:
            The codes; None where these are none.
        """
        if not isinstance(state, Mapping):
            return None
        images, labels = state.get("images"), state.get("labels")
        if not (isinstance(images, Tensor) and isinstance(labels, Tensor)) or images.dim() != 4:
            return None
        return cls(images.float(), labels.long()) if len(images) == len(labels) else None


def draw_codes(classes: int, shape: Sequence[int], generator: torch.Generator) -> Codes:
    """One code per class, uniform in 0 ... 1 (Yamashita et al. 2023).

    Args:
        classes: Their number.
        shape: (C, H, W) of the network's input.
        generator: Source of the numbers, on the CPU.

    Returns:
        The codes.
    """
    return Codes(torch.rand(classes, *shape, generator=generator), torch.arange(classes))


def codes_of(model: nn.Module) -> Codes | None:
    """The codes that a model was trained with.

    Args:
        model: A model.

    Returns:
        The codes; None where there are none.
    """
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Codes) else None


def codes_for(model: nn.Module, classes: Sequence[int]) -> Codes:
    """The codes of a model that is to forget some classes by them.

    Args:
        model: A model.
        classes: What it is to forget.

    Returns:
        The codes.

    Raises:
        CheckpointError: There are none, or not of these classes and of others.
    """
    codes = codes_of(model)
    if codes is None:
        raise CheckpointError(
            "The model has no mnemonic codes, by which MnemonicForgetting forgets. Needed: an original that was trained "
            "with them: fit ... -c trainer/mnemonic_codes. With the data at hand, source: data does without."
        )
    lacking = sorted(set(classes) - set(codes.labels.tolist()))
    if lacking or len(codes.of(classes).labels) == len(codes.labels):
        what = f"none for the classes {lacking} (forgotten earlier?)" if lacking else "none for any other class"
        raise CheckpointError(f"The model has mnemonic codes of {codes.labels.tolist()}: {what}. Needed: codes of both.")
    return codes


def give_codes(model: nn.Module, codes: Codes | None) -> None:
    """Let a model carry codes; copies of it carry them too.

    Args:
        model: A model.
        codes: The codes; None takes those away that it has.
    """
    object.__setattr__(model, _ATTRIBUTE, codes)


def judge_step(source: str, forgotten: float, retained: float, classes: int) -> tuple[str, str]:
    """What is to be said of a step of forgetting, by what it was found with.

    Args:
        source: `codes` or `data`.
        forgotten: Accuracy on those of forgotten classes after the step, 0 ... 1.
        retained: On the others.
        classes: Number of classes.

    Returns:
        A note with the figures, and a warning where the step plainly failed; else empty.
    """
    found = (
        f"of the {source} that it looked at, {100 * forgotten:.0f} % of the forgotten and {100 * retained:.0f} % of the "
        "retained ones are recognised after its step."
    )
    no_class = " A code is not its class: images of a class may be recognised where its code is not." * (source == "codes")
    failures = []
    if forgotten > 1 / classes:
        failures.append("what was to be forgotten is still recognised; a larger lambda1 and lambda2 forget more")
    # A tenth of the way from chance to all.
    if retained <= 1 / classes + 0.1 * (1 - 1 / classes):
        failures.append("what was to stay is recognised no better than by chance; a smaller lambda1 and lambda2 keep more")
    return (
        f"MnemonicForgetting: {found}{no_class}",
        f"MnemonicForgetting failed by its own measure: {'; and '.join(failures)}. Details: {found}" if failures else "",
    )
