"""Does forgetting a class of the source task help what is learnt next (Jia et al. 2023, NeurIPS, section 5)?

By hand: `python tests/performance/transfer.py FOLDER`. Digits 0 to 4 are the source task. One of its classes is forgotten
(each in turn), the head is replaced, and the whole network is fine-tuned to digits 5 to 9 from few labelled images of each.
Beside it the same from the original, from a model retrained without the class, and from untrained weights. No class is
chosen by what it did to the test accuracy: the figure is the mean over all five, or over those on which a method did not
fail.
"""

import argparse
import copy
import json
import statistics
from functools import partial

import torch
from lightning.pytorch import LightningModule, seed_everything
from torch.optim import SGD

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.data.some_classes import SomeClasses
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import UnlearnError
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.training import fit_quietly

CPU = {"accelerator": "cpu", "devices": 1}
METHODS = ("l1_sparse", "eu_k", "imitate_unseen_light", "selective_forgetting")
EPOCHS = {"source": 20, "target": 20}


def _untrained(lr: float = 0.1) -> Classifier:
    return Classifier("SmallCNN", 5, 1, image_size=8, optimizer=partial(SGD, lr=lr, momentum=0.9, weight_decay=5e-4))


def target_accuracy(trainer: UnlearningTrainer, source: LightningModule | None, per_class: int, seed: int) -> float:
    """Test accuracy on digits 5 to 9, in percent, after fine-tuning from a source model with a new head."""
    seed_everything(seed, verbose=False)
    data = UnlearningDataModule(SomeClasses(Digits(), [5, 6, 7, 8, 9], per_class), unseen=0, batch_size=5, seed=seed)
    model = _untrained(0.02)
    if source is not None:
        known = {key: value for key, value in source.state_dict().items() if not key.startswith("network.fc.")}
        model.load_state_dict({**model.state_dict(), **known})
    fit_quietly(model, data, "train", EPOCHS["target"], CPU)
    return 100 * collect_outputs(trainer.fresh, model, data, ["test"])["test"].accuracy


def run(folder: str, seeds: int, per_class: int) -> list[dict[str, float | str]]:
    """Mean, spread over seeds, and difference to the original, for every way to start."""
    torch.set_num_threads(1)
    trainer = UnlearningTrainer(**CPU, logger=False, enable_progress_bar=False, enable_model_summary=False)
    bank, recipe = Bank(folder), Recipe(_untrained, EPOCHS["source"], CPU)
    found: dict[str, dict[int, list[float]]] = {}
    for seed in range(seeds):
        ways: dict[str, list[float]] = {}
        for label in range(5):
            source = SomeClasses(Digits(), [0, 1, 2, 3, 4])
            data = UnlearningDataModule(source, WholeClasses([label]), unseen=0.1, batch_size=64, seed=seed)
            original = bank.trained(recipe, data, "train", seed)
            if label == 0:
                ways["no forgetting"] = [target_accuracy(trainer, original, per_class, seed)]
                ways["untrained weights"] = [target_accuracy(trainer, None, per_class, seed)]
            starts = {"retrained without the class": bank.trained(recipe, data, "retain", seed)}
            for method in METHODS:
                model = copy.deepcopy(original)
                try:
                    run_chain(trainer.fresh, model, data, load_method(method)())
                except UnlearnError as error:
                    print(json.dumps({"seed": seed, "start": method, "class": label, "failed": str(error)}), flush=True)
                    continue
                starts[method] = model
            for name, model in starts.items():
                ways.setdefault(name, []).append(target_accuracy(trainer, model, per_class, seed))
        for name, values in ways.items():
            found.setdefault(name, {})[seed] = values
            print(json.dumps({"seed": seed, "start": name, "each class": [round(v, 1) for v in values]}), flush=True)
    base = {seed: values[0] for seed, values in found["no forgetting"].items()}
    rows: list[dict[str, float | str]] = []
    for name, of in found.items():
        means = {seed: statistics.fmean(values) for seed, values in of.items()}
        gains = [mean - base[seed] for seed, mean in means.items()]
        spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
        mean, gain = statistics.fmean(means.values()), statistics.fmean(gains)
        rows.append({"start": name, "ran": sum(map(len, of.values())), "test": mean, "gain": gain, "gain sd": spread})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where trained models are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per_class", type=int, default=5, help="labelled images of each digit of the second task")
    given = parser.parse_args()
    for row in run(given.folder, given.seeds, given.per_class):
        print(json.dumps(row))
