"""Data: keys, forget rules, splits, data sets, views and loaders."""

from typing import TYPE_CHECKING

from lightning_unlearn.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_unlearn.data.arrays import Arrays
    from lightning_unlearn.data.augment import Augmentation
    from lightning_unlearn.data.batch import Batch
    from lightning_unlearn.data.by_score import ByScore
    from lightning_unlearn.data.datamodule import UnlearningDataModule
    from lightning_unlearn.data.datasets import CIFAR10, CIFAR10N, CIFAR100, MNIST, SVHN, Digits, FashionMNIST
    from lightning_unlearn.data.detected import DetectedMislabels
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
    from lightning_unlearn.data.from_datasets import FromDatasets
    from lightning_unlearn.data.no_data import NoData
    from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
    from lightning_unlearn.data.some_classes import SomeClasses
    from lightning_unlearn.data.suspected import SuspectedMislabels
    from lightning_unlearn.data.trigger import Trigger, TriggeredSamples
    from lightning_unlearn.data.vision import Samples, VisionData

__all__ = [
    "CIFAR10",
    "CIFAR10N",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Arrays",
    "Augmentation",
    "Batch",
    "ByAttribute",
    "ByScore",
    "DetectedMislabels",
    "Digits",
    "FashionMNIST",
    "ForgetRule",
    "FromDatasets",
    "ImageFolder",
    "LabelNoise",
    "ListedSamples",
    "NoData",
    "NoisyLabels",
    "RandomCount",
    "RandomFraction",
    "Samples",
    "Selection",
    "SomeClasses",
    "SuspectedMislabels",
    "Trigger",
    "TriggeredSamples",
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
        "CIFAR10N": "datasets",
        "CIFAR100": "datasets",
        "DetectedMislabels": "detected",
        "Digits": "datasets",
        "FashionMNIST": "datasets",
        "ForgetRule": "forget",
        "FromDatasets": "from_datasets",
        "ImageFolder": "folders",
        "LabelNoise": "noise",
        "ListedSamples": "forget",
        "MNIST": "datasets",
        "NoData": "no_data",
        "NoisyLabels": "noise",
        "RandomCount": "forget",
        "RandomFraction": "forget",
        "SVHN": "datasets",
        "Samples": "vision",
        "Selection": "forget",
        "SomeClasses": "some_classes",
        "SuspectedMislabels": "suspected",
        "Trigger": "trigger",
        "TriggeredSamples": "trigger",
        "UnlearningDataModule": "datamodule",
        "VisionData": "vision",
        "WholeClasses": "forget",
    },
)
