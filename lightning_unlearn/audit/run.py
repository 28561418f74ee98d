"""Audit methods over many models: originals, references and held-out references, every original unlearned by every method."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.audit.cells import Cell, Cells, Group, cells_of
from lightning_unlearn.audit.cost import expected_seconds, seconds_per_pass
from lightning_unlearn.audit.judging import CEILING, ZERO, Contender, Judge
from lightning_unlearn.audit.strata import of_remaining_classes, strata_of
from lightning_unlearn.bank.filling import train_missing
from lightning_unlearn.benchmark.comparison import Comparison
from lightning_unlearn.cautions import of_originals
from lightning_unlearn.chain.methods import Method
from lightning_unlearn.chain.run import TrainerFactory, note_of
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.views import View
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.processes import Task, available_processes, one_thread, run_tasks
from lightning_unlearn.ranks import lock_on_first
from lightning_unlearn.report.audit_schema import WHOLE, Audit
from lightning_unlearn.report.decode import decode, encode
from lightning_unlearn.report.labels import seconds
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.training import quiet

__all__ = ["FEWEST_MODELS", "AuditTier", "audit", "check_audit"]

log = logging.getLogger(__name__)

AuditTier: TypeAlias = Literal["audit", "benchmark"]

# U-LiRA leaves one out and fits a deviation to the rest.
FEWEST_MODELS = 3
# From here on a permutation test over models can reach the p that the controls ask for.
_FEWEST_FOR_A_CONTROL = 8
# Seeds of two forget sets would meet beyond it.
MOST_MODELS = 4000


def audit(
    what: Comparison,
    models: int = 16,
    tier: AuditTier = "audit",
    int8: bool = True,
    processes: int | None = None,
    keep_outputs: bool = False,
) -> Report:
    """Judge methods by what an attacker sees per sample over many models.

    For each forget set as many originals, references and held-out references are trained (or fetched from the bank), every
    original is unlearned by every method, and so is every held-out reference, of as many other samples, where the forget rule
    draws at random. What is finished is read again, so a killed run goes on.

    Args:
        what: What is compared; after `relearn_epochs` all models are compared again.
        models: Originals, references and held-out references per forget set, of each as many; `seeds_of` numbers them.
        tier: `benchmark` adds KLoM and the forgetting score.
        int8: Whether they are compared again with weights rounded to 8 bits.
        processes: Cells that run at once; None: as many as there are cores on a CPU, one on an accelerator.
        keep_outputs: Whether answers to single samples stay in the folder; where a method failed they stay until it succeeds.

    Returns:
        The report.
    """
    chosen, sets = what.plan([0], 0)
    data = what.data
    processes = check_audit(what.fresh, models, processes)
    if models < _FEWEST_FOR_A_CONTROL:
        log.warning(
            "%d models a side: no permutation of so few shows with p < 0.001 that originals differ, so the audit will be void. "
            "Needed for a verdict: %d, better 16.", models, _FEWEST_FOR_A_CONTROL,
        )  # fmt: skip
    report: Report | None = None
    with lock_on_first(what.folder, again=True):
        for forget_set in sets:
            data.draw(forget_set.draw, forget_set.rule)
            request = request_of(data, forget_set.name)
            panel = Panel(what.fresh, data, what.goal, request, 0, retrain_epochs=what.recipe.max_epochs)
            where = (what.bank, what.folder / "cells", forget_set.number)
            cells = Cells(what.fresh, data, what.recipe, *where, what.relearn_epochs, int8)
            part = new_report("audit", panel)
            part.audits.append(_Runner(cells, models, tier, processes, keep_outputs, panel).run(chosen))
            if report is None:
                report = part
            else:
                report.requests += part.requests
                report.audits += part.audits
        assert report is not None
        for caution in of_originals(_originals(report), data, what.recipe.build(0)):
            log.warning("%s", caution)
            report.warnings.append(caution)
        counts = (("method", len(chosen)), ("forget set", len(sets)), ("model", models))
        listed = ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts)
        report.title, report.tier, report.config = f"{data.dataset.name}: {listed} a side", tier, what.configuration
        save_report(report, what.folder)
    return report


def _originals(report: Report) -> list[tuple[str, Mapping[str, float]]]:
    """Figures of the originals of each forget set."""
    return [
        (audit.request, line.metrics)
        for audit in report.audits
        for line in audit.lines
        if (line.method, line.stratum) == (CEILING, WHOLE)
    ]


class _Runner:
    """Runs the cells of one forget set and judges them, or reads the audit where it is finished."""

    def __init__(self, cells: Cells, models: int, tier: AuditTier, processes: int, keep_outputs: bool, panel: Panel) -> None:
        self.cells, self.models, self.tier, self.processes = cells, models, tier, processes
        self.keep_outputs, self.panel = keep_outputs, panel

    def run(self, methods: Mapping[str, Method]) -> Audit:
        cells = self._cells(methods)
        content = [self.tier, *(str(self.cells.path(cell).name) for of_group in cells.values() for cell in of_group)]
        record = self.cells.folder / f"audit-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
        if record.is_file():
            return decode(Audit, json.loads(record.read_text()), "audit")
        failed = self._run_cells([cell for of_group in cells.values() for cell in of_group])
        begin = time.perf_counter()
        with one_thread():
            result = self._judge(cells, methods, failed)
        log.info("%s: judged in %s", self.panel.request.name, seconds(time.perf_counter() - begin))
        if failed:
            log.warning("answers are kept in %s: the same command runs only what failed.", self.cells.folder)
            return result
        write_text_atomic(record, json.dumps(encode(result)))
        if not self.keep_outputs:
            for cell in (cell for of_group in cells.values() for cell in of_group):
                self.cells.path(cell).unlink(missing_ok=True)
        return result

    def _cells(self, methods: Mapping[str, Method]) -> dict[tuple[Group, str], list[Cell]]:
        groups: list[tuple[Group, str]] = [("original", ""), ("reference", ""), ("held_out", "")]
        for method in methods:
            groups += [("unlearned", method)] if self.cells.no_shadows else [("unlearned", method), ("shadow", method)]
        number = self.cells.number
        return {(g, method): cells_of(g, self.models, number, method, methods.get(method)) for g, method in groups}

    def _run_cells(self, cells: Sequence[Cell]) -> dict[tuple[Group, str], str]:
        """Run what is missing: models are trained first, which all cells start from.

        Returns:
            Why cells failed, by group and method.
        """
        missing = [cell for cell in cells if Answers.load(self.cells.path(cell)) is None]
        if not missing:
            return {}
        self._train(missing)
        per_pass = seconds_per_pass(self.cells.recipe, self.cells.data)
        tasks = [self._task(cell, per_pass) for cell in missing]
        runs = sum(len(cell.seeds) for cell in missing if cell.build is not None)
        expected = sum(task.work for task in tasks) / self.processes
        log.info(
            "%s: %d models to unlearn, over %d process%s; about %s",
            self.panel.request.name, runs, self.processes, "es" * (self.processes > 1), seconds(expected),
        )  # fmt: skip
        failed = run_tasks(tasks, self.processes)
        for name, message in failed.items():
            log.warning("%s failed: %s", name, message)
        return {(cell.group, cell.method): failed[cell.name] for cell in missing if cell.name in failed}

    def _train(self, cells: Sequence[Cell]) -> None:
        """Fill the bank with what cells start from, many models at once."""
        of = self.cells
        seeds: dict[View, set[int]] = {"train": set(), "retain": set()}
        for cell in cells:
            seeds["train" if cell.group in ("original", "unlearned") else "retain"].update(cell.seeds)
        for view, wanted in seeds.items():
            train_missing(of.bank, of.recipe, of.data, view, sorted(wanted), self.processes)

    def _task(self, cell: Cell, per_pass: float) -> Task:
        """A cell as a task, its work in seconds of one core."""
        data = self.cells.data
        passes = float(sum(map(len, self.cells.samples.values())))
        if cell.group != "shadow":
            passes += 3.0 * self.cells.relearn_epochs * len(data.part("retain")[1])
        of_model = per_pass * passes + (expected_seconds(cell.build(), data, per_pass) if cell.build is not None else 0.0)
        return Task(cell.name, of_model * len(cell.seeds), partial(self.cells.run, cell), may_fail=cell.build is not None)

    def _judge(
        self,
        cells: Mapping[tuple[Group, str], Sequence[Cell]],
        methods: Mapping[str, Method],
        failed: Mapping[tuple[Group, str], str],
    ) -> Audit:
        data, samples = self.cells.data, self.cells.samples

        def answers(group: Group, method: str = "") -> Answers:
            chunks = [Answers.load(self.cells.path(cell)) for cell in cells[group, method]]
            return Answers.joined([chunk for chunk in chunks if chunk is not None])

        references, held_out, originals = answers("reference"), answers("held_out"), answers("original")
        contenders = [Contender(ZERO, "zero", held_out)]
        for method, build in methods.items():
            if ("unlearned", method) in failed:
                continue
            unlearned = answers("unlearned", method)
            stages = build()
            notes = " ".join(dict.fromkeys(note for stage in stages if (note := note_of(stage, data))))
            exact = stages[-1].exact
            alone = ("shadow", method) not in cells or ("shadow", method) in failed
            shadows = None if alone else answers("shadow", method)
            costs = self._costs(unlearned)
            contenders.append(
                Contender(method, "method", unlearned, shadows, note=notes, exact=exact, costs=costs, no_shadows=alone)
            )
        contenders.append(Contender(CEILING, "ceiling", originals, held_out))
        strata = strata_of(data, samples["forget"], references, held_out, originals, self.cells.relearn_epochs)
        of_samples, _ = data.part("forget")
        keys = [of_samples.keys[i] for i in samples["forget"].tolist()]
        labels = [data.dataset.classes[i] for i in of_samples.targets[samples["forget"]].tolist()]
        remaining = of_remaining_classes(data, samples["test"])
        judge = Judge(references, strata, self.tier == "benchmark", remaining=remaining)
        result = judge.audit(self.panel.request.name, contenders, keys, labels)
        result.notes += self._notes(failed)
        return result

    def _notes(self, failed: Mapping[tuple[Group, str], str]) -> list[str]:
        without = (
            "no U-LiRA, and no RMIA of forgotten samples: both need models that forgot as many other samples in the same way."
        )
        notes = [f"Methods have {without} {self.cells.no_shadows}"] if self.cells.no_shadows else []
        for (group, method), message in failed.items():
            if group == "unlearned":
                notes.append(f"{method} failed: {message}")
            elif ("unlearned", method) not in failed:
                notes.append(f"{method} has {without} Held-out references could not: {message}")
        return notes

    def _costs(self, unlearned: Answers) -> dict[str, float]:
        retraining = self.panel.retraining_work or math.nan
        return {
            "time/unlearn_s": float(unlearned.costs["seconds"].mean()),
            "cost/share": float(unlearned.costs["work"].mean()) / retraining,
        }


def check_audit(
    fresh: TrainerFactory,
    models: int,
    processes: int | None,
    seeds: Sequence[int] | None = None,
    tune: int = 0,
    rules: Sequence[ForgetRule | None] = (),
) -> int:
    """Refuse an audit that cannot run, before anything is written or computed.

    Args:
        fresh: Makes a Trainer.
        models: Models a side.
        processes: Cells that run at once; None: as many as there are cores.
        seeds: Seeds of originals, which belong to the tier `screen`.
        tune: Settings that are tried, which belong there too.
        rules: Forget rules.

    Returns:
        Cells that run at once.

    Raises:
        ConfigError: There are too few models, no process, several devices, or seeds, settings are to be tuned, or a rule is
            `DetectedMislabels`.
    """
    if tune:
        raise ConfigError(f"tune is {tune} in an audit; needed: the tier screen, whose files in tuned/ an audit takes.")
    if any(isinstance(rule, DetectedMislabels) for rule in rules):
        raise ConfigError(
            "DetectedMislabels has another forget set on each original, and the models of an audit forget the same. Needed: "
            "the tier screen; or run detect, and give its scores.csv to SuspectedMislabels."
        )
    if seeds is not None:
        raise ConfigError(f"seeds is {list(seeds)}, and an audit numbers its models itself. Leave it out, and give --models.")
    if not FEWEST_MODELS <= models <= MOST_MODELS:
        raise ConfigError(
            f"models is {models}; needed: at least {FEWEST_MODELS}, 16 for an audit that sees anything, at most {MOST_MODELS}."
        )
    if processes is not None and processes < 1:
        raise ConfigError(f"processes is {processes}; needed: at least 1.")
    with quiet():
        trainer = fresh(evaluation=True)
    if trainer.world_size > 1:
        raise ConfigError(
            f"The audit was given {trainer.world_size} devices; it trains many small models, each on one. "
            "Give --trainer.devices 1, and --processes for the cores of a CPU."
        )
    if trainer.strategy.root_device.type != "cpu":
        return 1
    return available_processes() if processes is None else processes
