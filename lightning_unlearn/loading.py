"""Put weights into a model, and see that model, data and references fit together."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_unlearn.cautions import of_reference
from lightning_unlearn.data.as_trained import normalised_alike
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.earlier import trained_on
from lightning_unlearn.data.saved_split import saved_beside
from lightning_unlearn.exceptions import CheckpointError, DataError
from lightning_unlearn.functional.in_use import look_at_calls
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.weights.checkpoint import load_into, read_saved, read_weights, save_weights
from lightning_unlearn.weights.mnemonic import codes_of, give_codes

__all__ = ["check_model", "check_normalised", "load_copy", "load_reference", "load_references", "save_unlearned"]


def check_model(
    model: nn.Module, data: UnlearningDataModule, checkpoint: str | None = None, stages: Sequence[UnlearningStage] = ()
) -> None:
    """Load the weights, and see that the model takes these images, knows these classes and suits the stages.

    Args:
        model: Gives logits of images; is in eval mode on the CPU afterwards.
        data: The data.
        checkpoint: Weights to load, with the codes that the model was trained with; None: those that the model has.
        stages: What is to be done with the model.

    Raises:
        CheckpointError: The checkpoint or the head does not fit.
        DataError: The model cannot read the images.
    """
    if checkpoint is not None:
        state, _, codes = read_saved(checkpoint)
        load_into(model, state, checkpoint)
        give_codes(model, codes)
    batch = data.example()
    model.cpu().eval()
    try:
        logits = look_at_calls(model, batch)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        # timm asserts the image size of a ViT or Swin.
        raise DataError(
            f"The model cannot read images of {tuple(batch.shape[1:])} (channels, height, width): {str(error).rstrip('.')}. "
            "Grayscale for colour, or another size? Change the data or the model's in_chans."
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise CheckpointError(f"The model gives a {type(logits).__name__}; needed: a tensor of logits (batch, classes).")
    if logits.dim() != 2 or logits.shape[1] != data.num_classes:
        raise CheckpointError(
            f"The model gives outputs of shape {tuple(logits.shape)} and the data have {data.num_classes} classes; "
            "needed: logits (batch, classes). Give the model num_classes of the data."
        )
    # The last batch of a pass may have one sample alone.
    with torch.no_grad():
        of_one = model(batch[:1].to(next(model.parameters(), batch)))
    if of_one.shape != logits[:1].shape:
        raise CheckpointError(
            f"Of one image the model gives outputs of shape {tuple(of_one.shape)}; needed: {tuple(logits[:1].shape)}. A "
            "squeeze() in its forward takes the batch for a dimension too many: name the one that is meant."
        )
    sums = logits.double().sum(1)
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        raise CheckpointError(
            "The model gives probabilities (each row is 0 or more and sums to 1); needed: logits. Leave out the softmax at the "
            "end of its forward: cross-entropy has it."
        )
    for stage in stages:
        stage.check(model, data)


def check_normalised(path: str, data: UnlearningDataModule) -> None:
    """See that a model is given the input that it was trained on, as far as a split beside it says so.

    Args:
        path: Its checkpoint.
        data: The data, normalised as for the model that is judged.

    Raises:
        CheckpointError: It was trained with another mean or deviation.
    """
    saved = saved_beside(path)
    if saved is None or normalised_alike(data.dataset, saved):
        return
    raise CheckpointError(
        f"{path} was trained with mean {saved.mean} and deviation {saved.std} (split.json beside it), and would be given the "
        f"input of the judged model: {data.dataset.input}. Needed: models of one normalisation. Train them with the same mean "
        "and std of the data set (fit --run takes them over), or judge them apart."
    )


def load_copy(model: nn.Module, path: str, data: UnlearningDataModule) -> nn.Module:
    """A model of the same architecture with the weights of a checkpoint, to be given the same input.

    Args:
        model: A model of the architecture; it is not changed.
        path: The checkpoint.
        data: The data, normalised as for the model that is judged.

    Returns:
        The copy. A checkpoint that does not fit, or was trained with another normalisation, is a `CheckpointError`.
    """
    check_normalised(path, data)
    return _with_weights(model, path)


def load_reference(model: nn.Module, path: str, data: UnlearningDataModule) -> nn.Module:
    """A reference of the same architecture, which must not have seen the forgotten samples.

    Args:
        model: A model of the architecture; it is not changed.
        path: The reference's checkpoint.
        data: The data, with what is forgotten.

    Returns:
        The reference.

    Raises:
        CheckpointError: It does not fit, or was trained on forgotten samples.
    """
    reference = _with_weights(model, path)
    trained = trained_on(data, path)
    if trained:
        raise CheckpointError(
            f"{path} was trained on {trained} of the forgotten samples, so it is no reference. Retrain it with the same "
            "forget rule and --data.view retain."
        )
    return reference


def _with_weights(model: nn.Module, path: str) -> nn.Module:
    other = copy.deepcopy(model)
    load_into(other, read_weights(path)[0], path)
    return other


def load_references(
    model: nn.Module, paths: Sequence[str], data: UnlearningDataModule, original: nn.Module | None = None
) -> tuple[list[nn.Module], list[str]]:
    """References to compare a model with, and what is doubtful about them.

    Args:
        model: The model; it is not changed.
        paths: Checkpoints of the references.
        data: The data, with what is forgotten.
        original: The model before unlearning, where `model` is not that.

    Returns:
        The references, and a sentence about each that was trained on unknown or other retained samples.

    Raises:
        CheckpointError: One does not fit, was trained on forgotten samples, or has the weights of the model, of the original,
            or of another reference.
    """
    known = [("the model itself", model)] + ([] if original is None else [("the original", original)])
    references, cautions = [], []
    for path in paths:
        reference = load_reference(model, path, data)
        twin = next((name for name, other in known if _same_weights(reference, other)), None)
        if twin is not None:
            raise CheckpointError(
                f"{path} holds the weights of {twin}, so comparing with it says nothing. Needed: models that were "
                "trained anew without the forgotten samples (fit with the same forget rule and --data.view retain), each with "
                "another seed."
            )
        known.append((path, reference))
        references.append(reference)
        cautions += of_reference(path, data)
    return references, cautions


def save_unlearned(
    path: str | Path, model: nn.Module, data: UnlearningDataModule, request: tuple[int, str] | None = None
) -> None:
    """Save an unlearned model; the codes of classes that it forgot are left out.

    Args:
        path: The file.
        model: The model.
        data: What was forgotten.
        request: See `save_weights`.
    """
    hyper = dict(model.hparams) if isinstance(model, LightningModule) else {}
    codes = codes_of(model)
    codes = None if codes is None else codes.without(data.forgotten_classes)
    save_weights(path, model.state_dict(), hyper, codes, request)


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in a.state_dict().items())
