"""Stages of unlearning: one idea, one file."""

from lightning_unlearn.stages.alternating import AlternatingStage
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.cached import CachedStage
from lightning_unlearn.stages.estimate_unseen import EstimateUnseen
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.fisher_noise import FisherNoise
from lightning_unlearn.stages.gaussian_noise import GaussianNoise
from lightning_unlearn.stages.gradient_ascent import GradientAscent
from lightning_unlearn.stages.imitate_unseen import ImitateUnseen
from lightning_unlearn.stages.mask_learning import MaskLearning
from lightning_unlearn.stages.norm_decay import NormDecay
from lightning_unlearn.stages.reset_layers import ResetLayers
from lightning_unlearn.stages.retrain import Retrain

__all__ = [
    "AlternatingStage",
    "CachedStage",
    "EstimateUnseen",
    "FineTune",
    "FisherNoise",
    "GaussianNoise",
    "GradientAscent",
    "ImitateUnseen",
    "MaskLearning",
    "NormDecay",
    "ResetLayers",
    "Retrain",
    "UnlearningStage",
]
