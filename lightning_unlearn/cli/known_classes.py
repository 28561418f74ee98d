"""What a config may name by its short class name: jsonargparse finds the classes that are imported."""

import importlib

__all__ = ["MODULES", "import_known_classes"]

MODULES = (
    "callbacks.mnemonic_codes",
    "callbacks.select_by_unseen",
    "callbacks.record_margins",
    "classifier",
    "data.arrays",
    "data.augment",
    "data.by_score",
    "data.datasets",
    "data.detected",
    "data.folders",
    "data.forget",
    "data.from_datasets",
    "data.no_data",
    "data.noise",
    "data.some_classes",
    "data.suspected",
    "data.trigger",
    "functional.structure",
    "imitation",
    "networks",
    "sisa.model",
    "stages",
)


def import_known_classes() -> None:
    """Import the modules of all classes that are shipped for configs."""
    for name in MODULES:
        importlib.import_module(f"lightning_unlearn.{name}")
