"""How small a leak the audit finds: models that were trained with k of the forgotten samples left in, against references.

By hand: `python tests/performance/audit_power.py FOLDER [most models a side]`; models are kept in FOLDER, so a second run
goes on. Digits with 20 % wrong labels, 120 of 1,200 forgotten, the small CNN of `benchmark/digits_audit`.
"""

import json
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD

from lightning_unlearn.attacks.rank_auc import MeanRankAuc
from lightning_unlearn.audit.answers import answers_of
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.bank.filling import train_missing
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import ForgetRule, RandomFraction, Selection
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.functional.permutation import permutation_test
from lightning_unlearn.trainer import UnlearningTrainer

LEFT_IN = (1, 2, 4, 8, 16, 32)
SIDES = (16, 40, 100)
REPEATS = 100


class AllBut(ForgetRule):
    """A random fraction, less k of its samples, drawn by their keys' order: what a careless deletion forgets."""

    def __init__(self, fraction: float, left_in: int) -> None:
        self.rule, self.left_in = RandomFraction(fraction=fraction), left_in

    def select(self, samples: Samples, candidates: Tensor, seed: int, class_names: Sequence[str]) -> Selection:
        """See `ForgetRule.select`."""
        chosen = self.rule.select(samples, candidates, seed, class_names).indices
        shuffled = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))]
        return Selection(shuffled[self.left_in :].sort().values, [])

    def describe(self) -> str:
        """See `ForgetRule.describe`."""
        return f"{self.rule.describe()}, {self.left_in} left in"


def _sgd(parameters):
    return SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)


def _data(rule: ForgetRule) -> UnlearningDataModule:
    noise = LabelNoise(fraction=0.2)
    data = UnlearningDataModule(Digits(), forget=rule, unseen=200, batch_size=64, label_noise=noise, forget_seed=200)
    data.prepare_data()
    data.setup("fit")
    return data


def run(folder: str, most: int) -> list[dict[str, float]]:
    """Shares of audits that find a leak at 5 %, by samples left in and models a side."""
    torch.set_num_threads(1)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    arguments = {"accelerator": "cpu", "devices": 1}
    trainer = UnlearningTrainer(**arguments, **quiet)
    recipe = Recipe(lambda: Classifier("SmallCNN", 10, 1, image_size=8, optimizer=_sgd), 40, arguments)
    bank = Bank(folder)
    whole = _data(RandomFraction(fraction=0.1))
    samples = {"forget": whole.part("forget")[1]}

    def margins(rule: ForgetRule, first_seed: int) -> Tensor:
        data, seeds = _data(rule), range(first_seed, first_seed + most)
        train_missing(bank, recipe, data, "retain", seeds)
        models = [bank.trained(recipe, data, "retain", seed) for seed in seeds]
        return answers_of(trainer.fresh, models, whole, samples).margins["forget"]

    references = margins(RandomFraction(fraction=0.1), 10_000)
    found = []
    for number, left_in in enumerate((0, *LEFT_IN)):
        rule = AllBut(0.1, left_in) if left_in else RandomFraction(fraction=0.1)
        leaky = margins(rule, 20_000 + 1_000 * number)
        for side in (s for s in SIDES if s <= most):
            source = torch.Generator().manual_seed(side)
            repeats = 1 if side == most else REPEATS
            hits = values = 0.0
            for _ in range(repeats):
                a, b = (group[torch.randperm(most, generator=source)[:side]] for group in (leaky, references))
                test = permutation_test(MeanRankAuc(), a, b, 199, generator=source)
                hits += test.p <= 0.05
                values += test.value - test.null_mean
            row = {"left_in": left_in, "side": side, "found": hits / repeats, "rank_auc_above_null": values / repeats}
            print(json.dumps(row), flush=True)
            found.append(row)
    return found


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else max(SIDES))
