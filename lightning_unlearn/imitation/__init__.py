"""Estimators of what a model that never saw a sample would say, and their mixtures."""

from lightning_unlearn.imitation.compared import BankEstimator, Fitted, KernelRegression, Neighbours
from lightning_unlearn.imitation.estimators import AnswerEstimator, Copies, Estimator, OwnAnswer, Surrogate

__all__ = [
    "AnswerEstimator",
    "BankEstimator",
    "Copies",
    "Estimator",
    "Fitted",
    "KernelRegression",
    "Neighbours",
    "OwnAnswer",
    "Surrogate",
]
