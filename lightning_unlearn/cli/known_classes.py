"""Imports what a config may name by its short class name: jsonargparse finds what is imported."""

import lightning_unlearn.classifier
import lightning_unlearn.data.arrays
import lightning_unlearn.data.augment
import lightning_unlearn.data.datasets
import lightning_unlearn.data.folders
import lightning_unlearn.data.forget
import lightning_unlearn.data.noise
import lightning_unlearn.functional.structure
import lightning_unlearn.networks
import lightning_unlearn.stages  # noqa: F401  # imported for its classes, like all of these
