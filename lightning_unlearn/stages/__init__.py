"""Stages of unlearning: one idea, one file."""

from lightning_unlearn.stages.alternating import AlternatingStage
from lightning_unlearn.stages.bad_teacher import BadTeacher
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.cached import CachedStage
from lightning_unlearn.stages.contrastive_rounds import ContrastiveRounds
from lightning_unlearn.stages.distil_original import DistilOriginal
from lightning_unlearn.stages.estimate_unseen import EstimateUnseen
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.fisher_forgetting import FisherForgetting
from lightning_unlearn.stages.fisher_noise import FisherNoise
from lightning_unlearn.stages.gaussian_noise import GaussianNoise
from lightning_unlearn.stages.gradient_ascent import GradientAscent
from lightning_unlearn.stages.imitate_unseen import ImitateUnseen
from lightning_unlearn.stages.influence import Influence
from lightning_unlearn.stages.keep_weights import KeepWeights
from lightning_unlearn.stages.kl_to_uniform import KLToUniform
from lightning_unlearn.stages.l1_sparse import L1Sparse
from lightning_unlearn.stages.magnitude_prune import MagnitudePrune
from lightning_unlearn.stages.mask_learning import MaskLearning
from lightning_unlearn.stages.neg_grad_plus import NegGradPlus
from lightning_unlearn.stages.norm_decay import NormDecay
from lightning_unlearn.stages.random_label import RandomLabel
from lightning_unlearn.stages.relabel import Relabel
from lightning_unlearn.stages.repair_reset import RepairReset
from lightning_unlearn.stages.reset_by_gradient import ResetByGradient
from lightning_unlearn.stages.reset_layers import ResetLayers
from lightning_unlearn.stages.retrain import Retrain
from lightning_unlearn.stages.saliency_mask import SaliencyMask
from lightning_unlearn.stages.salient_random_label import SalientRandomLabel
from lightning_unlearn.stages.scrub import Scrub
from lightning_unlearn.stages.selective_dampening import SelectiveDampening
from lightning_unlearn.stages.synflow_prune import SynFlowPrune

__all__ = [
    "AlternatingStage",
    "BadTeacher",
    "CachedStage",
    "ContrastiveRounds",
    "DistilOriginal",
    "EstimateUnseen",
    "FineTune",
    "FisherForgetting",
    "FisherNoise",
    "GaussianNoise",
    "GradientAscent",
    "ImitateUnseen",
    "Influence",
    "KLToUniform",
    "KeepWeights",
    "L1Sparse",
    "MagnitudePrune",
    "MaskLearning",
    "NegGradPlus",
    "NormDecay",
    "RandomLabel",
    "Relabel",
    "RepairReset",
    "ResetByGradient",
    "ResetLayers",
    "Retrain",
    "SaliencyMask",
    "SalientRandomLabel",
    "Scrub",
    "SelectiveDampening",
    "SynFlowPrune",
    "UnlearningStage",
]
