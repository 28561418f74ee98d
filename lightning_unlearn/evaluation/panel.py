"""Judge models on one split: the original and the references, whose outputs are collected once, and every unlearned model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_unlearn.cautions import loss_of_retained, of_labels, of_relearning, of_statistics
from lightning_unlearn.chain.run import StageResult, TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.evaluation.collecting import collect_outputs, outputs_of, relearn
from lightning_unlearn.evaluation.new_report import cautions_of, record_of
from lightning_unlearn.evaluation.relearn_curve import relearn_curve
from lightning_unlearn.metrics.change import weight_distance
from lightning_unlearn.metrics.relearn import relearn_time
from lightning_unlearn.metrics.screen import NO_REFERENCE, Goal, Screen, levels, screen
from lightning_unlearn.outputs import Outputs, PartOutputs
from lightning_unlearn.report.schema import Request, Role, Row

__all__ = ["Panel"]


@dataclass
class _Judged:
    """A model's outputs, before and after retain-only fine-tuning, and on test images with a backdoor's trigger."""

    outputs: Outputs
    relearned: Outputs | None
    triggered: tuple[PartOutputs, int] | None = None

    def without_unseen(self) -> "_Judged":
        """The same for a model that was trained on what is unseen to the others."""
        relearned = None if self.relearned is None else replace(self.relearned, unseen=None)
        return _Judged(replace(self.outputs, unseen=None), relearned, self.triggered)


@dataclass
class Panel:
    """What unlearned models of one split are compared with.

    Attributes:
        fresh: Makes a Trainer.
        data: The data, split.
        goal: What unlearning is for.
        request: What is forgotten.
        relearn_epochs: Epochs of retain-only fine-tuning; 0: it is left out.
        retrain_epochs: Epochs of the original's recipe, for the cost as a share of retraining; None: not known.
        svc: Whether the published SVC attack is run too.
        relearn_steps: Steps on the forgotten samples within which the relearn time is looked for; 0: it is left out.
        relearn_target: The forget accuracy that counts as back, the original's, 0 ... 1.
        original: Outputs of the model before unlearning; None until it was added.
        weights: Its weights.
        references: What the references gave.
        harm: What must be said of the relearn figures.
        cautions: What the report must warn of.
        losses: What the last unlearned model lost of what was to stay.
    """

    fresh: TrainerFactory
    data: UnlearningDataModule
    goal: Goal
    request: Request
    relearn_epochs: int = 3
    retrain_epochs: int | None = None
    svc: bool = False
    relearn_steps: int = 0
    relearn_target: float = math.nan
    original: Outputs | None = None
    harm: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    weights: Mapping[str, Tensor] | None = None
    references: list[_Judged] = field(default_factory=list)

    def add_original(self, model: nn.Module) -> Row:
        """Take the model before unlearning.

        Args:
            model: Gives logits of images.

        Returns:
            Its row.
        """
        self.weights = {name: value.detach().clone().cpu() for name, value in model.state_dict().items()}
        judged = self._judge(model, ["forget", "retain"])
        self.original = judged.outputs
        if judged.relearned is not None:
            self.harm = of_relearning(judged.outputs.retain.accuracy, judged.relearned.retain.accuracy)
        return self._row("original", "original", 0, self._screen(judged, original=False), model)

    def add_references(self, models: Sequence[nn.Module], seeds: Sequence[int]) -> list[Row]:
        """Take models that were retrained without the forgotten samples.

        Args:
            models: The references.
            seeds: Their seeds, or numbers.

        Returns:
            Their rows, each compared with the others.
        """
        self.references = [self._judge(model) for model in models]
        rows = []
        for i, (judged, seed, model) in enumerate(zip(self.references, seeds, models, strict=True)):
            others = self.references[:i] + self.references[i + 1 :]
            rows.append(self._row("reference", "reference", seed, self._screen(judged, others, original=False), model))
        return rows

    def add_baseline(self, name: str, seed: int, model: nn.Module) -> Row:
        """Judge a model that was trained otherwise, to stand beside the original and the references.

        Args:
            name: How it was trained.
            seed: Its seed.
            model: Gives logits of images.

        Returns:
            Its row.
        """
        return self._row(name, "baseline", seed, self._screen(self._judge(model), original=False), model)

    def score(
        self,
        method: str,
        seed: int,
        model: nn.Module,
        results: Sequence[StageResult] = (),
        settings: str = "",
        exact: bool = False,
        cautions: Sequence[str] = (),
    ) -> Row:
        """Judge an unlearned model.

        Args:
            method: Its method's name.
            seed: Seed of the run.
            model: Gives logits of images.
            results: What its stages took.
            settings: Its settings in one line.
            exact: Whether its method is exact, where nothing is known of its stages.
            cautions: What its method says against its figures, there too.

        Returns:
            Its row.
        """
        judged = self._judge(model)
        trained_on_unseen = any(result.trained_on_unseen for result in results)
        if trained_on_unseen:
            judged = judged.without_unseen()
        row = self._row(method, "method", seed, self._screen(judged), model)
        if trained_on_unseen:
            row.notes.append(
                "A stage trained on the unseen samples, so they are unseen no more: a later request can name them."
            )
        row.exact = results[-1].exact if results else exact
        if row.exact:
            row.notes[:] = [*of_statistics(self.data), *(note for note in row.notes if note != NO_REFERENCE)]
        # What exact methods lose is the price of having less data.
        if self.original is not None and self.goal != "repair" and not row.exact:
            self.losses = loss_of_retained(self.original.retain.accuracy, judged.outputs.retain.accuracy)
            row.notes[:0] = self.losses
        row.notes += [*self.harm, *of_labels(self.data, self.goal == "repair")]
        row.settings = settings
        retraining = self.retraining_work
        row.cautions = cautions_of(results) if results else list(cautions)
        row.notes += [result.note for result in results if result.note] if results else cautions
        for result in results:
            share = result.work / retraining if retraining else math.nan
            row.stages.append(record_of(result, share))
        if results:
            if torch.cuda.is_available():
                # On the CPU only the whole process's peak is known, which says nothing about one method.
                row.metrics["memory/peak_mb"] = max(result.peak_mb for result in results)
            row.metrics["time/unlearn_s"] = sum(result.seconds for result in results)
            if retraining:
                row.metrics["cost/share"] = sum(result.work for result in results) / retraining
        if self.weights is not None:
            row.metrics["distance"] = weight_distance(model.state_dict(), self.weights)
            row.details["layers"] = _layer_changes(model.state_dict(), self.weights)
        return row

    @property
    def retraining_work(self) -> float | None:
        """Image passes of retraining on the retained samples: three per image and epoch."""
        if self.retrain_epochs is None:
            return None
        return 3.0 * self.retrain_epochs * len(self.data.part("retain")[1])

    def levels(self) -> dict[str, float]:
        """What two references differ by.

        Returns:
            Metric to level; empty with fewer than two references.
        """
        if len(self.references) < 2:
            return {}
        relearned = [r.relearned for r in self.references if r.relearned is not None]
        return levels([r.outputs for r in self.references], relearned, svc=self.svc)

    def _judge(self, model: nn.Module, parts: Sequence[Part] = ("forget",)) -> _Judged:
        """Of the original, what becomes of retained samples too says whether the fine-tuning suits the model."""
        outputs = outputs_of(self.fresh, model, self.data)
        trigger, triggered = self.data.trigger, None
        if trigger is not None and len(self.data.part("triggered")[1]):
            triggered = (collect_outputs(self.fresh, model, self.data, ["triggered"])["triggered"], trigger.target)
        if self.relearn_epochs == 0:
            return _Judged(outputs, None, triggered)
        again = relearn(self.fresh, model, self.data, self.relearn_epochs, parts)
        after = Outputs(again["forget"], again.get("retain", outputs.retain), outputs.test, outputs.unseen)
        return _Judged(outputs, after, triggered)

    def _screen(self, judged: _Judged, references: Sequence[_Judged] | None = None, original: bool = True) -> Screen:
        references = self.references if references is None else references
        return screen(
            judged.outputs,
            [r.outputs for r in references],
            self.original if original else None,
            goal=self.goal,
            relearned=judged.relearned,
            references_relearned=[r.relearned for r in references if r.relearned is not None],
            svc=self.svc,
            triggered=judged.triggered,
        )

    def _add_relearn_time(self, row: Row, model: nn.Module) -> None:
        """Steps until forget accuracy is back: a censored value where it never is."""
        curve = relearn_curve(self.fresh, model, self.data, self.relearn_target, self.relearn_steps)
        time = relearn_time(curve, self.relearn_target)
        row.metrics["relearn/time"] = math.nan if time is None else time
        back = f"{100 * self.relearn_target:.1f} %, the original's"
        if time is None:
            row.notes.append(
                f"Relearn time: forget accuracy was not back at {back}, within {self.relearn_steps} steps on the forgotten "
                f"samples; it reached {100 * max(curve):.1f} %."
            )
        else:
            row.notes.append(f"Relearn time: {time} steps on the forgotten samples until their accuracy is back at {back}.")

    def _row(self, method: str, role: Role, seed: int, result: Screen, model: nn.Module) -> Row:
        row = Row(method, role, self.request.name, seed, dict(result.metrics), notes=list(result.notes))
        if self.relearn_steps:
            self._add_relearn_time(row, model)
        details: dict[str, Any] = result.details
        counts = details["histograms"]["counts"]
        references = [values for name, values in counts.items() if name.startswith("reference")]
        row.details["margins"] = {"bins": details["histograms"]["edges"], "forget": counts["forget"], "test": counts["test"]}
        if "unseen" in counts:
            row.details["margins"]["unseen"] = counts["unseen"]
        if references:
            row.details["margins"]["reference"] = [sum(values) / len(references) for values in zip(*references, strict=True)]
        if "roc" in details:
            row.details["roc"] = details["roc"]
        row.details["per_class"] = [
            {"class": name, "forget": entry["forget_acc"], "retain": entry["retain_acc"], "test": entry["test_acc"]}
            for name, entry in zip(self.data.dataset.classes, details["classes"], strict=True)
        ]
        return row


def _layer_changes(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative change of every weight matrix and kernel."""
    changes = {}
    for name, value in now.items():
        if value.dim() > 1 and value.is_floating_point():
            start = before[name].float()
            changes[name] = float((value.cpu().float() - start).norm() / start.norm().clamp(min=1e-12))
    return changes
