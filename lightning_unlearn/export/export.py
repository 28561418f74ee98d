"""Export for people without this package: safetensors, a timm or plain torch folder, a model card."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.export.model_card import Exported, Int8, model_card
from lightning_unlearn.export.rebuild import Plain, Recipe, find_recipe
from lightning_unlearn.files import write_atomic, write_text_atomic
from lightning_unlearn.functional.quantise import quantise_weights
from lightning_unlearn.report.decode import decode
from lightning_unlearn.report.schema import Report

__all__ = ["export"]

WEIGHTS, INT8_WEIGHTS = "model.safetensors", "model.int8.safetensors"
# In the order of writing: without config.json nothing is taken for a model.
TEXTS = ("modeling.py", "README.md", "config.json")
# What timm needs to know of an architecture, whatever was trained.
TIMM_TRAITS = ("fixed_input_size", "pool_size", "first_conv", "classifier")


def export(
    network: nn.Module,
    folder: str | Path,
    *,
    architecture: str,
    arguments: Mapping[str, Plain],
    num_classes: int,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    input_size: tuple[int, int, int],
    report: Report | Mapping[str, object] | None = None,
    overwrite: bool = False,
    int8: Mapping[str, tuple[float, float]] | None = None,
) -> Path:
    """Write `model.safetensors`, `config.json`, `README.md` and, for a class, its source as `modeling.py`.

    A timm network loads with `timm.create_model("local-dir:<folder>", pretrained=True)`; one whose layers
    were replaced after timm built it, and a class of one's own, with the lines in `README.md`. Before
    anything is written, the network is built again in the way that the card describes, and must give
    bit-equal outputs.

    Args:
        network: The network itself, giving logits (B, K); it is not changed.
        folder: Where; it is made if missing.
        architecture: timm name, or class path of a module whose file imports only torch and the standard
            library.
        arguments: Its arguments besides `num_classes` and `in_chans`.
        num_classes: Number of classes K.
        classes: Their names, (K,), in the order of the logits.
        mean: Mean per channel that images in 0 ... 1 were normalised by, (C,).
        std: Standard deviation per channel, (C,), above 0.
        input_size: Channels, height and width of the images.
        report: The evidence: a report, or the content of its JSON file.
        overwrite: Whether the files of an earlier export may be replaced.
        int8: What `check_int8` found; then `model.int8.safetensors` is written too, and the card has these figures. Each
            rounded weight is an int8 tensor `NAME` and its scales `NAME.scale`, see `functional.quantise`.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder is not empty, an argument does not fit, or the network cannot be built again.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{folder} is a file; needed: a folder for the export. Give another path.")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise ConfigError(
            f"{folder} is not empty; nothing was written. Give a new folder, or --overwrite (overwrite=True) to replace an "
            "earlier export."
        )
    evidence = _report(report)
    _check(num_classes, classes, mean, std, input_size)
    # A compiled module prefixes all names; channels-last weights differ in the last bits of their outputs.
    network = copy.deepcopy(getattr(network, "_orig_mod", network)).cpu().eval()
    network = network.to(memory_format=torch.contiguous_format)
    tensors = _tensors(network)
    recipe = find_recipe(
        network,
        architecture,
        {"num_classes": num_classes, "in_chans": input_size[0], **arguments},
        tensors,
        input_size,
    )
    with torch.inference_mode():
        shape = tuple(network(torch.zeros(1, *input_size, dtype=next(iter(network.parameters())).dtype)).shape)
    if shape != (1, num_classes):
        raise ConfigError(f"The network gives {shape} for one image; needed: logits (1, {num_classes}).")
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    files = {WEIGHTS: weights}
    if int8 is not None:
        files[INT8_WEIGHTS] = safetensors.torch.save(quantise_weights(tensors), metadata={"format": "pt"})
    card = Exported(
        name=architecture,
        library="pytorch" if recipe.source or recipe.replaced else "timm",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        classes=list(classes),
        mean=[float(value) for value in mean],
        std=[float(value) for value in std],
        input_size=input_size,
        sha256=_sha256(weights),
        loading=recipe.code(),
        note=_note(recipe),
        int8=None if int8 is None else Int8(int8, len(files[INT8_WEIGHTS]) / len(weights), _sha256(files[INT8_WEIGHTS])),
    )
    texts = {"README.md": model_card(card, evidence), "config.json": _config(card, network, recipe)}
    if recipe.source is not None:
        texts["modeling.py"] = recipe.source
    _write(target, files, texts)
    return target


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _report(report: Report | Mapping[str, object] | None) -> Report | None:
    if report is None or isinstance(report, Report):
        return report
    return decode(Report, {key: value for key, value in report.items() if key != "schema"}, "report")


def _check(
    num_classes: int,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    input_size: tuple[int, int, int],
) -> None:
    if len(input_size) != 3 or min(input_size) < 1:
        raise ConfigError(f"input_size is {input_size}; needed: channels, height and width, each 1 or more.")
    if len(classes) != num_classes:
        raise ConfigError(f"{len(classes)} class names for {num_classes} classes. Name each class once, in order.")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != input_size[0]:
            raise ConfigError(f"{name} has {len(values)} values; needed: one for each of {input_size[0]} channels.")
    if not all(value > 0 for value in std):
        raise ConfigError(f"std is {list(std)}; needed: values above 0.")


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """The state dict as safetensors takes it: nothing shared, everything contiguous, all weights finite."""
    state = network.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConfigError(f"The network's state has {odd[0]}, which is no tensor. Needed: tensors only.")
    broken = [name for name, weight in network.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ConfigError(f"The network has NaN or infinite weights in {broken[0]}. Export an earlier checkpoint.")
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def _note(recipe: Recipe) -> str:
    if recipe.replaced:
        return f"Layers of `{recipe.architecture}` were replaced before training; the lines below do so again."
    if recipe.source is not None:
        return "The network is defined in `modeling.py`, which imports torch and the standard library only."
    return ""


def _config(card: Exported, network: nn.Module, recipe: Recipe) -> str:
    """`config.json` as timm and the Hugging Face hub read it."""
    # Only timm's networks have these.
    traits = getattr(network, "pretrained_cfg", None) or {}
    architecture = card.name if recipe.source is None else f"modeling.{type(network).__name__}"
    if recipe.replaced:
        # timm must not build the unchanged architecture: where all shapes agree, it would predict wrongly.
        architecture += " (layers replaced, see README.md)"
    config = {
        "architecture": architecture,
        "num_classes": len(card.classes),
        "num_features": getattr(network, "num_features", None),
        "pretrained_cfg": {
            **{key: traits[key] for key in TIMM_TRAITS if traits.get(key) is not None},
            "num_classes": len(card.classes),
            "input_size": list(card.input_size),
            "mean": card.mean,
            "std": card.std,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "label_names": card.classes,
        },
        "model_args": recipe.model_args,
    }
    return json.dumps(config, indent=2) + "\n"


def _write(folder: Path, weights: Mapping[str, bytes], texts: Mapping[str, str]) -> None:
    """Write the files, each whole; files of an earlier export that this one lacks go."""
    for name in (INT8_WEIGHTS, *TEXTS):
        if folder.is_dir() and name not in texts and name not in weights:
            (folder / name).unlink(missing_ok=True)
    for name, content in weights.items():
        write_atomic(folder / name, partial(_put, content))
    for name in TEXTS:
        if name in texts:
            write_text_atomic(folder / name, texts[name])


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
