"""Data: keys, forget rules, splits, data sets, views and loaders."""

from typing import TYPE_CHECKING

from lightning_unlearn.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_unlearn.data.arrays import Arrays, FromDatasets
    from lightning_unlearn.data.augment import Augmentation
    from lightning_unlearn.data.batch import Batch
    from lightning_unlearn.data.by_score import ByScore
    from lightning_unlearn.data.datamodule import UnlearningDataModule
    from lightning_unlearn.data.datasets import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST
    from lightning_unlearn.data.folders import ImageFolder
    from lightning_unlearn.data.forget import (
        ByAttribute,
        ForgetRule,
        ListedSamples,
        RandomCount,
        RandomFraction,
        Selection,
        WholeClasses,
    )
    from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
    from lightning_unlearn.data.vision import Samples, VisionData

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Arrays",
    "Augmentation",
    "Batch",
    "ByAttribute",
    "ByScore",
    "Digits",
    "FashionMNIST",
    "ForgetRule",
    "FromDatasets",
    "ImageFolder",
    "LabelNoise",
    "ListedSamples",
    "NoisyLabels",
    "RandomCount",
    "RandomFraction",
    "Samples",
    "Selection",
    "UnlearningDataModule",
    "VisionData",
    "WholeClasses",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Arrays": "arrays",
        "Augmentation": "augment",
        "Batch": "batch",
        "ByAttribute": "forget",
        "ByScore": "by_score",
        "CIFAR10": "datasets",
        "CIFAR100": "datasets",
        "Digits": "datasets",
        "FashionMNIST": "datasets",
        "ForgetRule": "forget",
        "FromDatasets": "arrays",
        "ImageFolder": "folders",
        "LabelNoise": "noise",
        "ListedSamples": "forget",
        "MNIST": "datasets",
        "NoisyLabels": "noise",
        "RandomCount": "forget",
        "RandomFraction": "forget",
        "SVHN": "datasets",
        "Samples": "vision",
        "Selection": "forget",
        "UnlearningDataModule": "datamodule",
        "VisionData": "vision",
        "WholeClasses": "forget",
    },
)
