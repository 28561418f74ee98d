"""The command `export`: from a run's folder to a folder that others can load without this package."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from lightning_unlearn import networks
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.cli.job import newest_checkpoint
from lightning_unlearn.cli.known_classes import import_known_classes
from lightning_unlearn.cli.plain_parser import PlainParser
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.config.explain import core_of
from lightning_unlearn.config.introspection import class_at
from lightning_unlearn.data.as_trained import normalised_as
from lightning_unlearn.data.saved_split import saved_beside
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.export.export import export
from lightning_unlearn.export.model_card import int8_remark
from lightning_unlearn.report.labels import metric, number
from lightning_unlearn.sisa.model import Sisa

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
    parser.add_argument("--int8", action="store_true", help="also weights in 8 bits, and what rounding does to forgetting")
    if wants_help:
        parser.print_help()
        return 0
    given = parser.read(arguments)
    import_known_classes()
    run = RunFolder(Path(given.run))
    run.record()  # says so where it is no run
    checkpoint = _checkpoint(run.path)
    _check_network(run.config())
    model = Classifier.load(checkpoint)
    data, saved = _dataset(run.config()), saved_beside(checkpoint)
    data = data if saved is None else normalised_as(data, saved)
    hyper = model.hparams
    name, network_args = str(hyper["network"]), dict(hyper.get("network_args") or {})
    architecture = f"{networks.__name__}.{name}" if name in networks.__all__ else name
    kind = class_at(architecture) if "." in architecture else None
    if kind is not None and hyper.get("image_size") is not None and "image_size" in inspect.signature(kind).parameters:
        network_args = {"image_size": hyper["image_size"], **network_args}
    channels, height, width = data.train.images[0].shape
    report = run.path / "report.json"
    figures = _check_int8(model, run.config(), checkpoint) if given.int8 else None
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
        int8=figures,
    )
    if figures is not None:
        print(_shown(figures))
    print(f"exported {checkpoint} to {folder}")
    return 0


def _checkpoint(folder: Path) -> Path:
    unlearned = folder / "unlearned.ckpt"
    checkpoint = unlearned if unlearned.is_file() else newest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(f"{folder} holds no finished model. Needed: a run of unlearn that has ended, or one of fit.")
    return checkpoint


def _check_network(config: dict[str, object]) -> None:
    """Refuse a LightningModule of the user's own: its file would have to be copied, with all that it imports."""
    model = config.get("model")
    path = str(model.get("class_path")) if isinstance(model, dict) else ""
    kind = class_at(path) if "." in path else Classifier
    if kind is not None and issubclass(kind, Sisa):
        raise ConfigError(
            "A Sisa is several networks and their vote, which no timm or Hugging Face folder holds. Export its members one by "
            "one, in Python: lightning_unlearn.export.export(model.network.members[0], ...), for each."
        )
    if kind is None or not issubclass(kind, Classifier):
        raise ConfigError(
            f"{path} is a LightningModule of your own, which the exported folder could not load by itself. What works: "
            "put the nn.Module into a file that imports torch alone, give it num_classes and in_chans, and run unlearn with "
            "--model.network file.Class and the same checkpoint in place of --model. In Python: "
            "lightning_unlearn.export.export."
        )


def _check_int8(model: Classifier, config: dict[str, object], checkpoint: Path) -> dict[str, tuple[float, float]]:
    """What rounding does, on the data of the run, split as saved beside the checkpoint."""
    # Lightning takes seconds, which an export alone does without.
    from lightning_unlearn.data.datamodule import UnlearningDataModule
    from lightning_unlearn.export.int8_check import check_int8
    from lightning_unlearn.trainer import UnlearningTrainer

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UnlearningDataModule, "data")
    given = config.get("data")
    # The saved split says what was forgotten; the list of the request may be gone by now.
    settings = {**given, "forget": None, "view": "train"} if isinstance(given, dict) else {}
    try:
        data: UnlearningDataModule = parser.instantiate(parser.parse_object({"data": settings})).data
    except ArgumentError as error:
        raise ConfigError(f"The run's config does not describe its data: {core_of(str(error))}") from None
    data.use_split_of(checkpoint, forgotten_is_removed=False)
    trainer = UnlearningTrainer(devices=1, logger=False, enable_progress_bar=False)
    return check_int8(trainer.fresh, model, data)


def _shown(figures: dict[str, tuple[float, float]]) -> str:
    lines = [f"{'':<40}{'full':>10}{'int8':>10}"]
    for name, values in figures.items():
        if not name.endswith(("/low", "/high")):
            lines.append(f"{metric(name).label:<40}" + "".join(f"{number(name, value):>10}" for value in values))
    return "\n".join([*lines, int8_remark(figures)])


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
