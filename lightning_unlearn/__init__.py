"""Train image classifiers with PyTorch Lightning, make them forget chosen samples, and show how close that is to retraining."""

from typing import TYPE_CHECKING

from lightning_unlearn.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_unlearn.classifier import Classifier
    from lightning_unlearn.data.datamodule import UnlearningDataModule
    from lightning_unlearn.trainer import UnlearningTrainer

__version__ = "0.1.0"

__all__ = ["Classifier", "UnlearningDataModule", "UnlearningTrainer", "__version__"]

__getattr__ = lazy_names(
    __name__, {"Classifier": "classifier", "UnlearningDataModule": "data.datamodule", "UnlearningTrainer": "trainer"}
)
