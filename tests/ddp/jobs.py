"""What is computed on one rank and on two: `python jobs.py JOB FOLDER DEVICES` writes `FOLDER/JOB-DEVICES-RANK.pt`.

Run from the folder, so that the user's own stage in it is found.
"""

import copy
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback

from lightning_unlearn import stages as shipped
from lightning_unlearn.callbacks.keep_mask import KeepMask
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.callbacks.select_by_unseen import SelectByUnseen
from lightning_unlearn.callbacks.teacher import Teacher
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import ListedSamples, RandomFraction, WholeClasses
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import UnlearnError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.imitation import Copies, KernelRegression, Neighbours, OwnAnswer, Surrogate
from lightning_unlearn.metrics.unseen_match import distance_to_unseen
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.stages.gradient_passes import mean_fisher, mean_gradient
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.training import fit_quietly
from lightning_unlearn.weights.mnemonic import draw_codes, give_codes


def sgd(lr):
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=5e-4)


def adam(lr):
    return lambda params: torch.optim.Adam(params, lr=lr)


def end():
    return ParameterSelector(parts=["last_stage", "head"])


def head():
    return ParameterSelector(parts=["head"])


def chains(long):
    """One chain or more for every stage: `long` is 20 steps, otherwise one epoch."""
    length = {"max_epochs": 50, "max_steps": 20} if long else {"max_epochs": 1}
    forget = {"batch_size": 5, **length}
    estimate = {"estimators": [Copies(2, (1,)), Neighbours(3)], "bank_samples": 101, "unseen_samples": 21}
    shared = {**estimate, "estimators": [KernelRegression(layer="last_stage"), OwnAnswer()], "rank_samples": 31}
    mask = {"penalty": 1e-4, "batch_size": 3, "optimizer": adam(2e-3), "max_epochs": 5 if long else 1}
    imitate = {"max_steps": 20 if long else 6, "batch_size": 33, "forget_batch_size": 9, "optimizer": sgd(0.05)}
    anew = {"held_out_samples": 31, "batch_size": 33, "optimizer": sgd(0.02), **length}
    turns = {"rounds": 4 if long else 1, "batch_size": 33, "forget_batch_size": 5, "optimizer": sgd(0.01)}
    push = {"forget_optimizer": sgd(0.01), "forget_schedule": "cosine", "forget_floor": 1e-4}
    slow = {"optimizer": sgd(0.02)}
    beside = {"max_steps": 20 if long else 6, "batch_size": 33, "forget_batch_size": 5, **slow}
    unseen = {"temperatures": [1.0, 5.0], "with_labels": False, "part": "unseen", "batch_size": 9, **length, **slow}
    imp = {"sparsity": 0.5, "rate": 0.3, "epochs": 2 if long else 1, "rewind_epoch": 1 if long else 0, "optimizer": sgd(0.02)}
    some = {"max_epochs": 7 if long else 2, "last_epochs": 4 if long else 0, **slow}
    multipliers = [0.3, 1.0, 0.7] if long else [1.0]
    s = shipped
    return {
        "AdversarialExamples": lambda: [s.AdversarialExamples(steps=5)],
        "AdversarialFineTune": lambda: [s.AdversarialExamples(steps=5), s.AdversarialFineTune(**length, **slow)],
        "AdversarialFineTune, alone": lambda: [s.AdversarialExamples(steps=5), s.AdversarialFineTune(False, **length, **slow)],
        "BadTeacher": lambda: [s.BadTeacher(max_epochs=10 if long else 1, **beside)],
        "ClassMeanTargets": lambda: [s.ClassMeanTargets(), s.ImitateUnseen(**imitate)],
        "ClassWeightedFineTune": lambda: [s.ClassWeightedFineTune(**length, **slow)],
        "ContrastiveRounds": lambda: [s.ContrastiveRounds(**turns, **push)],
        "DistilOriginal": lambda: [s.KeepWeights(), s.ResetLayers(last_blocks=1), s.DistilOriginal(**length, **slow)],
        "DistilOriginal, unseen": lambda: [s.KeepWeights(), s.ResetLayers(last_blocks=1), s.DistilOriginal(**unseen)],
        "ErrorMaximisingNoise": lambda: [s.ErrorMaximisingNoise(5, 3)],
        "EstimateUnseen": lambda: [s.EstimateUnseen(**estimate)],
        "FineTune": lambda: [s.FineTune(optimizer=sgd(0.05), schedule="one_cycle", **length)],
        "FineTune, cached": lambda: [s.FineTune(optimizer=sgd(0.05), parameters=end(), cache=True, **length)],
        "FineTune, augmented copies": lambda: [
            s.FineTune(optimizer=sgd(0.05), parameters=end(), cache=True, copies=2, **length)
        ],
        "FineTune, head": lambda: [s.FineTune(optimizer=sgd(0.05), parameters=head(), cache=False, **length)],
        "FisherForgetting": lambda: [s.FisherForgetting(samples=51, parameters=end())],
        "FisherNoise": lambda: [s.FisherNoise(samples=101)],
        "FisherNoise, of the model": lambda: [s.FisherNoise(samples=51, kind="model", parameters=end())],
        "FisherNoise, one sample": lambda: [s.FisherNoise(samples=1, parameters=end())],
        "GaussianNoise": lambda: [s.GaussianNoise(std=0.1), s.GaussianNoise(std=0.1)],
        "GradientAscent": lambda: [s.GradientAscent(max_retain_drop=100.0, **forget)],
        "ImitateUnseen": lambda: [s.EstimateUnseen(**estimate), s.ImitateUnseen(**imitate)],
        "ImitateUnseen, cached": lambda: [
            s.EstimateUnseen(**estimate),
            s.ImitateUnseen(parameters=end(), correction=0.5, **imitate),
        ],
        "ImitateUnseen, shared": lambda: [s.EstimateUnseen(**shared), s.ImitateUnseen(parameters=end(), **imitate)],
        "Impair": lambda: [s.ErrorMaximisingNoise(5, 3), s.Impair(1.0, 7, 33, sgd(0.01)), s.Repair(0.5, 33, sgd(0.01))],
        "Influence": lambda: [s.Influence(samples=51, parameters=end())],
        "Influence, cg": lambda: [s.Influence(samples=51, form="removal", curvature="ggn", solver="cg", iterations=5)],
        "IterativePrune": lambda: [s.IterativePrune(**imp)],
        "KLToUniform": lambda: [s.KLToUniform(optimizer=sgd(0.01), **forget)],
        "KeepWeights": lambda: [s.KeepWeights()],
        "KeepZeros": lambda: [s.MagnitudePrune(0.8), s.KeepZeros(), s.FineTune(optimizer=sgd(0.05), **length)],
        "L1Sparse": lambda: [s.L1Sparse(optimizer=sgd(0.05), **length)],
        "MagnitudePrune": lambda: [s.MagnitudePrune(0.8), s.FineTune(optimizer=sgd(0.05), **length)],
        "MaskLearning": lambda: [s.MaskLearning(cache=False, **mask)],
        "MaskLearning, exclusive": lambda: [s.MaskLearning(exclusive=True, forget_batch_size=3, **mask), s.NormDecay(0.4)],
        "MatchEntropy": lambda: [s.KeepWeights(), s.RedrawSmallest(0.5), s.MatchEntropy(epochs=2.2 if long else 0.6, **slow)],
        "MnemonicForgetting": lambda: [s.MnemonicForgetting()],
        "MnemonicForgetting, data": lambda: [s.MnemonicForgetting(source="data", samples=51)],
        "NegGradPlus": lambda: [s.NegGradPlus(max_retain_drop=100.0, **{**beside, "max_epochs": 50})],
        "NormDecay": lambda: [s.MaskLearning(**mask), s.NormDecay(0.3), s.FineTune(optimizer=sgd(0.05), **length)],
        "RandomLabel": lambda: [s.RandomLabel(**turns)],
        "RandomTensorFineTune": lambda: [s.RandomTensorFineTune(**some)],
        "RedrawSmallest": lambda: [s.RedrawSmallest(0.9)],
        "Relabel": lambda: [s.EstimateUnseen(**estimate), s.Relabel(**imitate)],
        "Repair": lambda: [s.Repair(0.5, 33, sgd(0.02))],
        "RepairReset": lambda: [s.ResetByGradient(), s.RepairReset(multipliers, **slow)],
        "ResetByGradient": lambda: [s.ResetByGradient()],
        "ResetLayers": lambda: [s.ResetLayers(last_blocks=1)],
        "Retrain": lambda: [s.Retrain(optimizer=sgd(0.05), max_epochs=4 if long else 1)],
        "SaliencyMask": lambda: [s.SaliencyMask()],
        "SalientRandomLabel": lambda: [s.SaliencyMask(), s.SalientRandomLabel(rounds=2 if long else 1, optimizer=sgd(0.05))],
        "Scrub": lambda: [s.Scrub(temperature=2.0, distil_weight=0.5, **turns)],
        "Scrub, rewound": lambda: [s.Scrub(callbacks=[SelectByUnseen(samples=51)], **turns)],
        "SelectiveDampening": lambda: [s.SelectiveDampening(alpha=2.0)],
        "SynFlowPrune": lambda: [s.SynFlowPrune(0.8, rounds=5)],
        "TrainSurrogate": lambda: [
            s.TrainSurrogate(**anew),
            s.EstimateUnseen([Surrogate()], unseen_samples=21),
            s.ImitateUnseen(**imitate),
        ],
        "TransposeKernels": lambda: [s.TransposeKernels()],
    }


# Those in which no BatchNorm is in train mode.
IN_EVAL_MODE = (
    "AdversarialExamples",
    "ErrorMaximisingNoise",
    "EstimateUnseen",
    "FineTune, head",
    "FisherForgetting",
    "FisherNoise",
    "FisherNoise, of the model",
    "GaussianNoise",
    "GradientAscent",
    "Influence",
    "Influence, cg",
    "KeepWeights",
    "MaskLearning",
    "MaskLearning, exclusive",
    "MnemonicForgetting",
    "MnemonicForgetting, data",
    "RedrawSmallest",
    "ResetByGradient",
    "ResetLayers",
    "SaliencyMask",
    "SelectiveDampening",
    "SynFlowPrune",
    "TransposeKernels",
)


def classifier(norm="group"):
    network = {"norm": norm, "blocks": [1, 1, 1], "width": 8}
    return Classifier("ResNet", num_classes=10, in_chans=1, network_args=network, optimizer=sgd(0.05))


def data(forget=None, **kwargs):
    """Odd sizes everywhere: 205 samples, of which 31 are unseen and 17 forgotten; batches of 33."""
    dataset = Digits(test_size=101, train_size=205)
    arguments = {"unseen": 31, "batch_size": 33, "num_workers": 0, "seed": 0, **kwargs}
    return UnlearningDataModule(dataset, forget or RandomFraction(0.1), **arguments)


def trainer(devices, **kwargs):
    strategy = {"strategy": "ddp"} if devices > 1 else {}
    silent = {"logger": False, "enable_progress_bar": False}
    return UnlearningTrainer(accelerator="cpu", devices=devices, **{**silent, **strategy, **kwargs})


def start(folder, norm="group"):
    """The classifier that `make_start` trained."""
    model = classifier(norm)
    model.load_state_dict(torch.load(Path(folder) / f"{norm}.pt", weights_only=True))
    return model.eval()


def make_start(folder):
    """Train one classifier of each kind on one rank."""
    for norm in ("group", "batch"):
        torch.manual_seed(0)
        model = classifier(norm)
        fit_quietly(model, data(), "train", 8, {"accelerator": "cpu", "devices": 1})
        torch.save(model.cpu().state_dict(), Path(folder) / f"{norm}.pt")


def run_chains(folder, devices, norm, precision, names=None):
    """Weights, artifacts, work and summary of every chain."""
    found = {}
    for name, build in chains(long=precision == "64-true").items():
        if names is not None and name not in names:
            continue
        model, chain = start(folder, norm), build()
        rule = WholeClasses([3]) if any(stage.whole_classes for stage in chain) else None
        augmentation = Augmentation(1) if "augmented" in name else None
        give_codes(model, draw_codes(10, (1, 8, 8), torch.Generator().manual_seed(0)))
        results = run_chain(trainer(devices, precision=precision).fresh, model, data(rule, augmentation=augmentation), chain)
        found[name] = {
            "weights": model.state_dict(),
            "artifacts": chain[-1].artifacts.state_dict(),
            "work": [result.work for result in results],
            "summary": [result.summary for result in results],
        }
    return found


def chains_in_float64(folder, devices):
    return run_chains(folder, devices, "group", "64-true")


def chains_in_float32(folder, devices):
    return run_chains(folder, devices, "group", "32-true")


def chains_in_eval_mode(folder, devices):
    return run_chains(folder, devices, "batch", "64-true", IN_EVAL_MODE)


def batch_norm_in_train_mode(folder, devices):
    """Fine-tuning and training with BatchNorm: weights, accuracies, and what was warned of."""
    found = {"warnings": []}
    for name in ("FineTune", "Retrain"):
        model = start(folder, "batch")
        stage = {
            "FineTune": shipped.FineTune(max_epochs=3, optimizer=sgd(0.02)),
            "Retrain": shipped.Retrain(max_epochs=25, optimizer=sgd(0.1)),
        }[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run_chain(trainer(devices).fresh, model, data(), [stage])
        found["warnings"].append([str(w.message) for w in caught if "BatchNorm" in str(w.message)])
        weights = copy.deepcopy(model.state_dict())  # before a pass over the data, which gives all ranks those of the first
        outputs = collect_outputs(trainer(devices).fresh, model, data())
        accuracy = {part: float((o.logits.argmax(1) == o.targets).float().mean()) for part, o in outputs.items()}
        found[name] = {"weights": weights, "accuracy": accuracy}
    return found


class OwnBuffers(Callback):
    """Leaves every rank buffers of its own at the end, as a callback of a stage's `configure_callbacks` may."""

    def on_train_end(self, running, module):
        for buffer in module.classifier.buffers():
            buffer.add_(running.global_rank)


class Disturbed(shipped.FineTune):
    def configure_callbacks(self):
        return [OwnBuffers()]


def buffers_of_a_chosen_epoch(folder, devices):
    """An epoch is chosen, or buffers are spoilt, with BatchNorm in train mode: weights, and how near the forgotten are."""
    found = {}
    for name, kind in (("chosen", shipped.FineTune), ("disturbed", Disturbed)):
        model, select = start(folder, "batch"), SelectByUnseen(max_retain_drop=100.0, samples=51)
        stage = kind(max_epochs=3, optimizer=sgd(0.02), callbacks=[select] if name == "chosen" else [])
        run_chain(trainer(devices).fresh, model, data(), [stage])
        weights = copy.deepcopy(model.state_dict())  # before a pass over the data, which gives all ranks those of the first
        outputs = collect_outputs(trainer(devices).fresh, model, data(), ["forget", "unseen"])
        distance = distance_to_unseen(outputs["forget"], outputs["unseen"])
        found[name] = {"weights": weights, "distance": distance, "promised": select.distances, "at": select.chosen}
    return found


def evaluation(folder, devices):
    """Outputs for every size of the forgotten part, from fewer samples than ranks on."""
    found, model = {}, start(folder)
    keys = data().samples.keys
    for count in (1, 2, 3, 5, 8):
        names = [keys[i] for i in data().part("retain")[1][:count].tolist()]
        listed = Path(folder) / f"request-{count}-{os.environ.get('LOCAL_RANK', 'x')}-{devices}.txt"
        listed.write_text("\n".join(names) + "\n")
        module = data(ListedSamples(str(listed)), eval_batch_size=3)
        for precision in ("32-true", "bf16-mixed", "64-true"):
            outputs = collect_outputs(trainer(devices, precision=precision).fresh, copy.deepcopy(model), module)
            # As after relearning: no other part gives a rank without forgotten samples anything to do.
            alone = collect_outputs(trainer(devices, precision=precision).fresh, copy.deepcopy(model), module, ["forget"])
            outputs["forget alone"] = alone["forget"]
            found[count, precision] = {part: (o.logits, o.targets, o.index) for part, o in outputs.items()}
    return found


def plain_report(report):
    """Figures of a report without what a clock or the memory says."""
    rows = {}
    for row in report.rows:
        kept = {k: v for k, v in row.metrics.items() if not k.startswith(("time/", "memory/"))}
        rows[f"{row.method}/{row.role}/{row.seed}"] = {"metrics": kept, "notes": row.notes}
    return {"rows": rows, "levels": report.levels, "warnings": report.warnings}


def unlearn(folder, devices):
    """The whole command: report, checkpoint, split."""
    model, output = start(folder), Path(folder) / f"unlearn-{devices}"
    chain = chains(long=False)["NormDecay"]()
    report = trainer(devices, precision="64-true").unlearn(model, data(), chain, output=str(output), relearn_epochs=1)
    return {"report": plain_report(report), "weights": model.state_dict(), "files": files(output)}


def benchmark(folder, devices):
    """Shipped and own stages by class_path, originals and references from a bank; then all of it again from the files."""
    sys.path.insert(0, os.getcwd())
    output, bank = Path(folder) / f"benchmark-{devices}", Path(folder) / f"bank-{devices}"
    methods = [str(Path(folder) / "bounded.yaml"), str(Path(folder) / "noise.yaml")]
    torch.manual_seed(0)
    model, found = classifier(), {}
    for turn in ("first", "again", "bank only"):
        if turn == "bank only":
            output = Path(folder) / f"benchmark-{devices}-second"
        begin = time.perf_counter()
        report = trainer(devices, precision="64-true", max_epochs=2).benchmark(
            model, data(), methods, output=str(output), bank=str(bank), relearn_epochs=1
        )
        found[turn] = {"report": plain_report(report), "files": files(output), "seconds": time.perf_counter() - begin}
    return found


class Links(shipped.AlternatingStage):
    """All shared links in one stage: alternating passes, a teacher, a mask of gradients, and passes over parts."""

    def __init__(self):
        super().__init__(rounds=3, forget_optimizer=sgd(0.01), forget_schedule="cosine", optimizer=sgd(0.02), forget_rounds=2)

    def bind(self, classifier, artifacts):
        self.teacher = Teacher(classifier, artifacts)
        super().bind(classifier, artifacts)

    def configure_callbacks(self):
        return [self.teacher, KeepMask("mask")]

    def on_fit_start(self):
        gradient = mean_gradient(self, "forget")
        fisher = mean_fisher(self, "train", 101)
        self.artifacts["gradient"], self.artifacts["fisher"] = gradient, fisher
        self.artifacts["mask"] = {name: value.abs() > value.abs().median() for name, value in gradient.items()}

    def objective(self, batch):
        part = next(iter(batch.values()))
        student, teacher = self.classifier(part.input).log_softmax(1), self.teacher.logits(part).softmax(1)
        values = torch.nn.functional.kl_div(student, teacher, reduction="none").sum(1)
        labels = torch.nn.functional.cross_entropy(student, part.target, reduction="none")
        return self.mean(labels - values if "forget" in batch else labels + values, part)


def links(folder, devices):
    """Weights, artifacts and work of the shared links, with gradients clipped."""
    model, stage = start(folder), Links()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = trainer(devices, precision="64-true", gradient_clip_val=0.5).fresh
    results = run_chain(fresh, model, data(forget_batch_size=5), [stage])
    return {
        "before": before,
        "weights": model.state_dict(),
        "artifacts": stage.artifacts.state_dict(),
        "work": [result.work for result in results],
    }


def margins(folder, devices):
    """The record of a training, kept in the middle of an epoch, gone on with, and in its checkpoint."""
    kept = Path(folder) / f"margins-{devices}.ckpt"

    class Keep(Callback):
        def on_train_batch_end(self, running, module, outputs, batch, batch_idx):
            if running.global_step == 8:
                running.save_checkpoint(kept)

    records, served = [], data(view="train")
    for resume in (None, kept):
        model, record = start(folder).double(), RecordMargins()
        links = [record, *([Keep()] if resume is None else [])]
        length = {"max_epochs": 2, "limit_val_batches": 0, "enable_checkpointing": False}
        running = trainer(devices, precision="64-true", callbacks=links, **length)
        running.fit(model, datamodule=served, ckpt_path=resume)
        records.append(record.state_dict())
    saved = torch.load(kept, weights_only=True)["callbacks"]["RecordMargins"]
    return {"records": records, "pending": saved["pending"], "steps": len(served.plan)}


def failing(folder, devices):
    """A loss that is not finite on the last rank alone ends the stage on all ranks, and the next stage runs."""
    sys.path.insert(0, os.getcwd())
    from bounded import BrokenOnTheLastRank

    model, errors = start(folder), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):
        try:
            run_chain(trainer(devices).fresh, model, data(), [BrokenOnTheLastRank(max_epochs=1)])
        except UnlearnError as error:
            errors.append(str(error))
    untouched = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    run_chain(trainer(devices).fresh, model, data(), [shipped.FineTune(max_epochs=1, optimizer=sgd(0.05))])
    return {"errors": errors, "untouched": untouched, "weights": model.state_dict()}


def sisa(folder, devices):
    """An ensemble that is trained and loses samples, beside a fresh training on what is left."""

    def model():
        return Sisa("MLP", 10, 1, image_size=8, network_args={"hidden": [16]}, optimizer=sgd(0.05), shards=2, slices=2)

    def fit(name, module):
        fitted = model()
        place = str(Path(folder) / f"sisa-{name}-{devices}")
        trainer(devices, precision="64-true", max_epochs=3, default_root_dir=place).fit(fitted, datamodule=module)
        return fitted, f"{place}/checkpoints/last.ckpt"

    rule, output = RandomFraction(0.02), Path(folder) / f"sisa-unlearned-{devices}"
    deleted, checkpoint = fit("first", data(rule))
    first = {name: value.clone() for name, value in deleted.state_dict().items()}
    report = trainer(devices, precision="64-true").unlearn(
        deleted, data(rule), [shipped.RetrainShards()], checkpoint=checkpoint, output=str(output), relearn_epochs=0
    )
    fresh, _ = fit("fresh", data(rule, view="retain"))
    return {
        "first": first,
        "weights": deleted.state_dict(),
        "fresh": fresh.state_dict(),
        "work": report.rows[-1].stages[0].work,
        "files": files(output),
        "left": files(Path(checkpoint).parent),
    }


def files(folder):
    # Ranks look when all have finished writing.
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


JOBS = {
    job.__name__: job
    for job in (
        chains_in_float64,
        chains_in_float32,
        chains_in_eval_mode,
        batch_norm_in_train_mode,
        buffers_of_a_chosen_epoch,
        evaluation,
        unlearn,
        benchmark,
        failing,
        links,
        sisa,
        margins,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    job, folder, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    found = {name: JOBS[name](folder, devices) for name in job.split(",")}
    torch.save(found, Path(folder) / f"{job}-{devices}-{rank}.pt")
