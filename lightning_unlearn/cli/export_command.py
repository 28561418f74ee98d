"""The command `export`: from a run's folder to a folder that others can load without this package."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from lightning_unlearn import networks
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.cli.explain import core_of
from lightning_unlearn.cli.introspection import class_at
from lightning_unlearn.cli.job import newest_checkpoint
from lightning_unlearn.cli.known_classes import import_known_classes
from lightning_unlearn.cli.plain_parser import PlainParser
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.export import export

__all__ = ["export_command"]


def export_command(arguments: Sequence[str], wants_help: bool = False) -> int:
    """Run the command.

    Args:
        arguments: Without the command's name.
        wants_help: Whether only the help is printed.

    Returns:
        The exit code.
    """
    parser = PlainParser("export")
    parser.add_argument("run", metavar="RUN", help="folder of a run of unlearn or fit")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the export")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier export")
    if wants_help:
        parser.print_help()
        return 0
    given = parser.parse_args(arguments)
    import_known_classes()
    run = RunFolder(Path(given.run))
    run.record()  # says so where it is no run
    checkpoint = _checkpoint(run.path)
    model = Classifier.load(checkpoint)
    data = _dataset(run.config())
    hyper = model.hparams
    name, network_args = str(hyper["network"]), dict(hyper.get("network_args") or {})
    architecture = f"{networks.__name__}.{name}" if name in networks.__all__ else name
    kind = class_at(architecture) if "." in architecture else None
    if kind is not None and hyper.get("image_size") is not None and "image_size" in inspect.signature(kind).parameters:
        network_args = {"image_size": hyper["image_size"], **network_args}
    channels, height, width = data.train.images[0].shape
    report = run.path / "report.json"
    folder = export(
        model.network,
        given.output,
        architecture=architecture,
        arguments=network_args,
        num_classes=model.num_classes,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        input_size=(int(channels), int(height), int(width)),
        report=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        overwrite=given.overwrite,
    )
    print(f"exported {checkpoint} to {folder}")
    return 0


def _checkpoint(folder: Path) -> Path:
    unlearned = folder / "unlearned.ckpt"
    checkpoint = unlearned if unlearned.is_file() else newest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(f"{folder} holds no finished model. Needed: a run of unlearn that has ended, or one of fit.")
    return checkpoint


def _dataset(config: dict[str, object]) -> VisionData:
    """The data set of a run, which knows class names and normalisation."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--dataset", type=VisionData, required=True)
    data = config.get("data")
    try:
        parsed = parser.parse_object({"dataset": data["dataset"] if isinstance(data, dict) else None})
    except (ArgumentError, KeyError) as error:
        raise ConfigError(f"The run's config names no usable data set: {core_of(str(error))}") from None
    dataset: VisionData = parser.instantiate(parsed).dataset
    return dataset
