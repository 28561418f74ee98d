"""Stages of unlearning: one idea, one file."""

from lightning_unlearn.stages.adversarial_examples import AdversarialExamples
from lightning_unlearn.stages.adversarial_fine_tune import AdversarialFineTune
from lightning_unlearn.stages.alternating import AlternatingStage
from lightning_unlearn.stages.bad_teacher import BadTeacher
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.cached import CachedStage
from lightning_unlearn.stages.class_mean_targets import ClassMeanTargets
from lightning_unlearn.stages.class_weighted_fine_tune import ClassWeightedFineTune
from lightning_unlearn.stages.contrastive_rounds import ContrastiveRounds
from lightning_unlearn.stages.distil_original import DistilOriginal
from lightning_unlearn.stages.error_maximising_noise import ErrorMaximisingNoise
from lightning_unlearn.stages.estimate_unseen import EstimateUnseen
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.stages.fisher_forgetting import FisherForgetting
from lightning_unlearn.stages.fisher_noise import FisherNoise
from lightning_unlearn.stages.gaussian_noise import GaussianNoise
from lightning_unlearn.stages.gradient_ascent import GradientAscent
from lightning_unlearn.stages.imitate_unseen import ImitateUnseen
from lightning_unlearn.stages.impair_repair import Impair, Repair
from lightning_unlearn.stages.influence import Influence
from lightning_unlearn.stages.iterative_prune import IterativePrune
from lightning_unlearn.stages.keep_weights import KeepWeights
from lightning_unlearn.stages.keep_zeros import KeepZeros
from lightning_unlearn.stages.kl_to_uniform import KLToUniform
from lightning_unlearn.stages.l1_sparse import L1Sparse
from lightning_unlearn.stages.magnitude_prune import MagnitudePrune
from lightning_unlearn.stages.mask_learning import MaskLearning
from lightning_unlearn.stages.match_entropy import MatchEntropy
from lightning_unlearn.stages.mnemonic_forgetting import MnemonicForgetting
from lightning_unlearn.stages.neg_grad_plus import NegGradPlus
from lightning_unlearn.stages.norm_decay import NormDecay
from lightning_unlearn.stages.random_label import RandomLabel
from lightning_unlearn.stages.random_tensor_fine_tune import RandomTensorFineTune
from lightning_unlearn.stages.redraw_smallest import RedrawSmallest
from lightning_unlearn.stages.relabel import Relabel
from lightning_unlearn.stages.repair_reset import RepairReset
from lightning_unlearn.stages.reset_by_gradient import ResetByGradient
from lightning_unlearn.stages.reset_layers import ResetLayers
from lightning_unlearn.stages.retrain import Retrain
from lightning_unlearn.stages.retrain_shards import RetrainShards
from lightning_unlearn.stages.saliency_mask import SaliencyMask
from lightning_unlearn.stages.salient_random_label import SalientRandomLabel
from lightning_unlearn.stages.scrub import Scrub
from lightning_unlearn.stages.selective_dampening import SelectiveDampening
from lightning_unlearn.stages.synflow_prune import SynFlowPrune
from lightning_unlearn.stages.train_surrogate import TrainSurrogate
from lightning_unlearn.stages.transpose_kernels import TransposeKernels

__all__ = [
    "AdversarialExamples",
    "AdversarialFineTune",
    "AlternatingStage",
    "BadTeacher",
    "CachedStage",
    "ClassMeanTargets",
    "ClassWeightedFineTune",
    "ContrastiveRounds",
    "DistilOriginal",
    "ErrorMaximisingNoise",
    "EstimateUnseen",
    "FineTune",
    "FisherForgetting",
    "FisherNoise",
    "GaussianNoise",
    "GradientAscent",
    "ImitateUnseen",
    "Impair",
    "Influence",
    "IterativePrune",
    "KLToUniform",
    "KeepWeights",
    "KeepZeros",
    "L1Sparse",
    "MagnitudePrune",
    "MaskLearning",
    "MatchEntropy",
    "MnemonicForgetting",
    "NegGradPlus",
    "NormDecay",
    "RandomLabel",
    "RandomTensorFineTune",
    "RedrawSmallest",
    "Relabel",
    "Repair",
    "RepairReset",
    "ResetByGradient",
    "ResetLayers",
    "Retrain",
    "RetrainShards",
    "SaliencyMask",
    "SalientRandomLabel",
    "Scrub",
    "SelectiveDampening",
    "SynFlowPrune",
    "TrainSurrogate",
    "TransposeKernels",
    "UnlearningStage",
]
