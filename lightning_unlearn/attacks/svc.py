"""The membership attack that papers report: a support vector classifier on the true-class confidence."""

import importlib

import torch
from torch import Tensor

from lightning_unlearn.attacks.threshold import trained_efficacy

__all__ = ["mia_svc", "svc_attack"]


def mia_svc(
    forget: Tensor,
    retain: Tensor,
    non_members: Tensor,
    retain_targets: Tensor,
    *,
    seed: int = 0,
    retain_index: Tensor | None = None,
) -> float:
    """Share of D_f that an SVC between D_r and test samples calls non-members.

    For comparison with published tables (Fan et al., SalUn, ICLR 2024); `attacks.threshold.mia_efficacy` is
    as good an attack and thousands of times faster. The kernel is not invariant to a change of scale: give
    confidences, not margins.

    Args:
        forget: Confidences of D_f, (n_f,), in 0 ... 1.
        retain: Confidences of D_r, (n_r,); as many as there are non-members are drawn from it,
            class-balanced.
        non_members: Confidences of test samples, (n_test,).
        retain_targets: Labels of D_r, (n_r,), int64.
        seed: Seed of the draw; the same samples as for the threshold attack.
        retain_index: Sample indices of D_r, (n_r,), int64; positions where left out.

    Returns:
        The share, in 0 ... 1.
    """
    return trained_efficacy(svc_attack, forget, retain, non_members, retain_targets, seed, retain_index)


def svc_attack(members: Tensor, non_members: Tensor, scores: Tensor) -> Tensor:
    """Which scores an SVC with C = 3, an RBF kernel and gamma "auto" calls members, as published.

    Args:
        members: Confidences, (N,).
        non_members: Confidences, (M,).
        scores: Confidences of the samples to judge, (S,).

    Returns:
        (S,), bool.
    """
    # Here, as scikit-learn costs 2.5 s to import and nothing else of the screen needs it.
    svm = importlib.import_module("sklearn.svm")
    x = torch.cat([members, non_members]).detach().double().unsqueeze(1).numpy()
    y = torch.cat([torch.ones(len(members)), torch.zeros(len(non_members))]).numpy()
    model = svm.SVC(C=3, kernel="rbf", gamma="auto").fit(x, y)
    return torch.from_numpy(model.predict(scores.detach().double().unsqueeze(1).numpy())) == 1
