"""What a config may name by its short class name: jsonargparse finds the classes that are imported."""

import importlib

__all__ = ["MODULES", "import_known_classes"]

MODULES = (
    "classifier",
    "data.arrays",
    "data.augment",
    "data.by_score",
    "data.datasets",
    "data.folders",
    "data.forget",
    "data.noise",
    "estimators",
    "functional.structure",
    "networks",
    "stages",
)


def import_known_classes() -> None:
    """Import the modules of all classes that are shipped for configs."""
    for name in MODULES:
        importlib.import_module(f"lightning_unlearn.{name}")
