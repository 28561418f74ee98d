"""What models say of samples that they were not trained on: every fold of the training set by a model of the others."""

import importlib
import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.detection.scores import Fold
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import ConfigError

__all__ = ["Folds", "confident_learning", "need_cleanlab"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folds:
    """How out-of-fold answers are made.

    Attributes:
        recipe: How models are trained.
        bank: Where they are found, or kept; `scores` with as many folds uses the same ones.
        count: Number of folds, at least 2.
    """

    recipe: Recipe
    bank: Bank
    count: int = 5

    def check(self, samples: int) -> None:
        """Refuse a number of folds, before anything is trained.

        Args:
            samples: Number of training samples.

        Raises:
            ConfigError: There are fewer than two folds, or more than samples.
        """
        if not 2 <= self.count <= samples:
            raise ConfigError(f"folds is {self.count}; needed: 2 to {samples}, the number of training samples.")

    def logits(self, fresh: TrainerFactory, data: UnlearningDataModule) -> Tensor:
        """Logits of every sample of the part `train` from the model that did not see its fold.

        Args:
            fresh: Makes a Trainer.
            data: The data; its own forget rule does not count, and holds again afterwards.

        Returns:
            (N, K), float32, in the order of the indices. A number of folds that `check` refuses is refused.
        """
        index = data.part("train")[1]
        self.check(len(index))
        seed_before, rule_before = data.forget_seed, data.forget_rule
        table: Tensor | None = None
        try:
            for fold in range(self.count):
                begin = time.perf_counter()
                data.draw(0, Fold(fold, self.count))
                left_out = torch.searchsorted(index, data.part("forget")[1])
                model = self.bank.trained(self.recipe, data, "retain", 1 + fold)
                answers = collect_outputs(fresh, model, data, ["forget"])["forget"].logits
                table = answers.new_zeros(len(index), answers.shape[1]) if table is None else table
                table[left_out] = answers
                log.info("detect: fold %d of %d, %.1f s", fold + 1, self.count, time.perf_counter() - begin)
        finally:
            data.forget_rule = rule_before
            data.draw(seed_before)
        assert table is not None
        return table


def need_cleanlab() -> None:
    """See that cleanlab is there, before anything is trained for it.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        importlib.import_module("cleanlab")
    except ImportError as error:
        raise ConfigError(
            f"The score 'cleanlab' needs the package cleanlab ({error}). Install it with pip install "
            "'lightning-unlearn[labels]', or give --score [out_of_fold], which needs folds alone."
        ) from None


def confident_learning(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and suspects of confident learning (Northcutt et al. 2021, JAIR), as cleanlab computes them.

    Args:
        probabilities: Out-of-fold, (N, K).
        labels: Given labels, (N,), int64.

    Returns:
        One minus the self-confidence, adjusted by the classes' thresholds, (N,), float64; and what its noise matrix calls
        label issues, (N,), bool.
    """
    need_cleanlab()
    given = {"labels": labels.numpy(), "pred_probs": probabilities.double().numpy()}
    quality = importlib.import_module("cleanlab.rank").get_label_quality_scores(**given, adjust_pred_probs=True)
    issues = importlib.import_module("cleanlab.filter").find_label_issues(**given, n_jobs=1)
    return 1 - torch.from_numpy(quality).double(), torch.from_numpy(issues)
