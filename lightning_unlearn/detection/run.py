"""Score every training sample by how suspect its label is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.request import nearest
from lightning_unlearn.detection.folds import Folds, confident_learning, need_cleanlab
from lightning_unlearn.detection.record import MarginRecord
from lightning_unlearn.detection.result import Detection, Scored
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.functional import label_scores
from lightning_unlearn.functional.anatomy import head_name

__all__ = ["SCORES", "check_count", "check_names", "detect"]

# Samples that make the Fisher matrix of the last layer.
BASIS = 1000
# Added to its diagonal; on digits 1e-5 to 1e-1 differed by 0.03 in AUROC, and smaller was better.
DAMPING = 1e-4
# Of the training, where no epoch is given: on digits the best one or nearly so with 5, 20 and 40 % noise.
EARLY = 0.25


@dataclass(frozen=True)
class _Kind:
    """A score: in words, what it needs, and whether it spreads over orders of magnitude."""

    title: str
    needs: str
    log: bool = False


SCORES = {
    "mean_loss": _Kind("Mean loss over the epochs of training", "record", log=True),
    "aum": _Kind("Area under the margin (minus)", "record"),
    "early_loss": _Kind("Loss at an early epoch", "record", log=True),
    "self_influence": _Kind("Influence on its own loss, last layer", "features", log=True),
    "loss": _Kind("Loss of the trained model", "outputs", log=True),
    "margin": _Kind("Margin of the trained model (minus)", "outputs"),
    "total_influence": _Kind("Total training loss that leaving it out adds, last layer", "features"),
    "out_of_fold": _Kind("Loss of a model that was not trained on it", "folds", log=True),
    "cleanlab": _Kind("Confident learning (cleanlab): 1 - adjusted self-confidence", "folds"),
}
_RECORD = ("mean_loss", "aum", "early_loss")
_ALONE = ("self_influence", "loss", "margin")


def detect(
    fresh: TrainerFactory,
    model: nn.Module,
    data: UnlearningDataModule,
    scores: Sequence[str] | None = None,
    threshold: Threshold | None = None,
    record: MarginRecord | None = None,
    folds: Folds | None = None,
    early_epoch: int | None = None,
) -> Detection:
    """Score the samples that a model was trained on; the forget rule of the data does not count.

    Args:
        fresh: Makes a Trainer.
        model: The trained model: gives logits of images.
        data: The data, with the split that the model was trained with.
        scores: Names from `SCORES`; the first decides who is suspected. None: what needs no further training: with a record
            `mean_loss`, `aum` and `early_loss`; then `self_influence` (of a linear last layer), `loss` and `margin`.
        threshold: Where suspects begin; None: the upper part of a mixture of two, or for `cleanlab` its own decision.
        record: The course of training, for the scores that need it.
        folds: How out-of-fold answers are made, for the scores that need them.
        early_epoch: Epoch of `early_loss`, from 1, where that is among the scores; None: after a quarter of the training.

    Returns:
        The scores, suspects and suggested labels. Where the truth is known, it takes no part in them.

    A score that is unknown or named twice, or that needs something which is missing, is a `ConfigError`.
    """
    samples, index = data.part("train")
    maker = _Maker(fresh, model, data, record, folds, early_epoch)
    alone = [name for name in _ALONE if name != "self_influence" or maker.head]
    names = list(scores) if scores else [*(_RECORD if record else ()), *alone]
    chosen = threshold or Threshold()
    check_names(names)
    check_count(data, chosen)
    maker.check(names)
    found: dict[str, Scored] = {}
    for name in names:
        # A pass that several scores share counts for each: what it would cost alone.
        begin, before = time.perf_counter(), dict(maker.seconds)
        values, own = maker.score(name)
        took = time.perf_counter() - begin
        took += sum(maker.seconds[part] for part in maker.used_by(name) if part in before)
        decided = own is not None and threshold in (None, Threshold())
        suspected = own if decided and own is not None else chosen.suspected(values, SCORES[name].log)
        words = "confident learning" if decided else chosen.describe()
        found[name] = Scored(SCORES[name].title, values, suspected, took, words, SCORES[name].log)
    return Detection(
        keys=[samples.keys[i] for i in index.tolist()],
        index=index,
        classes=list(data.dataset.classes),
        labels=samples.targets[index],
        suggested=maker.suggested(names[0]),
        true_labels=None if samples.true_targets is None else samples.true_targets[index],
        scores=found,
    )


def check_names(scores: Sequence[str]) -> None:
    """Refuse names of scores, before data are read.

    Args:
        scores: The names.

    Raises:
        ConfigError: One is unknown, or stands there twice.
    """
    unknown = [name for name in scores if name not in SCORES]
    if unknown or len(set(scores)) < len(scores):
        hint = nearest(unknown[0], SCORES) if unknown else ""
        raise ConfigError(f"score is {', '.join(scores)}; needed: different ones of {', '.join(SCORES)}.{hint}")


def check_count(data: UnlearningDataModule, threshold: Threshold) -> None:
    """Refuse a number of suspects, before anything is computed or written.

    Args:
        data: The data, split.
        threshold: Where suspects begin.

    Raises:
        ConfigError: There are no more samples than that.
    """
    samples = len(data.part("train")[1])
    if threshold.count is not None and threshold.count >= samples:
        raise ConfigError(f"count is {threshold.count}, and there are {samples} samples; ask for fewer.")


class _WithFeatures(nn.Module):
    """Logits with the input of the last layer beside them: one pass gives both."""

    def __init__(self, model: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.head = [head]  # in a list: it is a part of `model` already

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        handle = self.head[0].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            logits: Tensor = self.model(x)
        finally:
            handle.remove()
        return torch.cat([logits, kept[-1].flatten(1)], 1)


@dataclass
class _Maker:
    """Makes scores, each pass over the data once."""

    fresh: TrainerFactory
    model: nn.Module
    data: UnlearningDataModule
    record: MarginRecord | None
    folds: Folds | None
    early_epoch: int | None

    def __post_init__(self) -> None:
        samples, self.index = self.data.part("train")
        self.hashes, self.labels = samples.hashes[self.index], samples.targets[self.index]
        self.seconds: dict[str, float] = {}
        self.wants_features = False

    def check(self, names: Sequence[str]) -> None:
        """Refuse scores that cannot be made, before anything is computed."""
        needs = {SCORES[name].needs for name in names}
        first = {need: next(name for name in names if SCORES[name].needs == need) for need in needs}
        if "record" in needs and self.record is None:
            raise ConfigError(
                f"The score {first['record']!r} needs the course of training, and the checkpoint holds no record of it. Train "
                "with -c trainer/record_margins behind the other configs, or ask for --score [self_influence,loss,margin]."
            )
        if "folds" in needs and self.folds is None:
            raise ConfigError(
                f"The score {first['folds']!r} trains a model for each fold, and how they are trained is not given. Give "
                "--trainer.max_epochs, as for the original."
            )
        if "folds" in needs and self.folds is not None:
            self.folds.check(len(self.index))
        if "features" in needs and self.head is None:
            raise ConfigError(
                f"The score {first['features']!r} needs a last layer that is linear in one vector a sample, and "
                f"{type(self.model).__name__} has none. Ask for other scores, such as [loss,margin]."
            )
        if "cleanlab" in names:
            need_cleanlab()
        if self.early_epoch is not None and "early_loss" not in names:
            raise ConfigError(
                f"early_epoch is {self.early_epoch}, and the score that needs it, early_loss, is not among {', '.join(names)}. "
                "Ask for --score [early_loss], which needs a training with -c trainer/record_margins; or leave early_epoch out."
            )
        if self.record is not None and self.early_epoch is not None:
            label_scores.early_loss(self.record.losses, self._early)
        self.wants_features = "features" in needs

    @cached_property
    def head(self) -> nn.Linear | None:
        """The last layer, where it is linear."""
        try:
            layer = self.model.get_submodule(head_name(self.model))
        except ValueError:
            return None
        return layer if isinstance(layer, nn.Linear) else None

    def used_by(self, name: str) -> tuple[str, ...]:
        """Passes that a score needs."""
        needs = SCORES[name].needs
        return {"features": ("outputs", "layer"), "outputs": ("outputs",), "folds": ("folds",)}.get(needs, ())

    def score(self, name: str) -> tuple[Tensor, Tensor | None]:
        """A score, and its own decision where it makes one."""
        if name in _RECORD:
            assert self.record is not None
            of_record: dict[str, Callable[[MarginRecord], Tensor]] = {
                "mean_loss": lambda r: label_scores.mean_loss(r.losses),
                "aum": lambda r: label_scores.area_under_margin(r.margin_sum, r.seen),
                "early_loss": lambda r: label_scores.early_loss(r.losses, self._early),
            }
            return of_record[name](self.record), None
        if name == "cleanlab":
            return confident_learning(self.fold_logits.double().softmax(1), self.labels)
        if name == "out_of_fold":
            return label_scores.final_loss(self.fold_logits, self.labels), None
        if name in ("loss", "margin"):
            function = label_scores.final_loss if name == "loss" else label_scores.negative_margin
            return function(self.outputs[0], self.labels), None
        influence = label_scores.self_influence if name == "self_influence" else label_scores.total_influence
        return influence(self.layer, order(self.hashes, 0, "influence")[:BASIS], DAMPING), None

    def suggested(self, first: str) -> Tensor:
        """What labels would rather be, by the best of what the first score rests on."""
        if SCORES[first].needs == "folds":
            return label_scores.other_label(self.fold_logits, self.labels)
        if self.record is not None:
            record = self.record
            voted = label_scores.voted_label(record.losses, record.rivals, self.labels, self.data.num_classes)
            if bool((record.seen > 0).all()):
                return voted
            return torch.where(record.seen > 0, voted, label_scores.other_label(self.outputs[0], self.labels))
        return label_scores.other_label(self.outputs[0], self.labels)

    @property
    def _early(self) -> int:
        assert self.record is not None
        epochs = len(self.record.losses)
        if self.early_epoch is not None and not 1 <= self.early_epoch <= epochs:
            raise ConfigError(f"early_epoch is {self.early_epoch}; needed: 1 to {epochs}, the epochs that were recorded.")
        return self.early_epoch or max(1, round(EARLY * epochs))

    @cached_property
    def outputs(self) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and features (N, D) where a score wants them."""
        begin = time.perf_counter()
        wanted = self.head if self.wants_features else None
        model = self.model if wanted is None else _WithFeatures(self.model, wanted)
        table = collect_outputs(self.fresh, model, self.data, ["train"])["train"].logits
        self.seconds["outputs"] = time.perf_counter() - begin
        classes = self.data.num_classes
        return table[:, :classes], table[:, classes:]

    @cached_property
    def layer(self) -> label_scores.LastLayer:
        """What gradients of the last layer are made of."""
        logits, features = self.outputs
        return label_scores.LastLayer.of(features, logits, self.labels)

    @cached_property
    def fold_logits(self) -> Tensor:
        """Out-of-fold logits, (N, K)."""
        assert self.folds is not None
        begin = time.perf_counter()
        table = self.folds.logits(self.fresh, self.data)
        self.seconds["folds"] = time.perf_counter() - begin
        return table
