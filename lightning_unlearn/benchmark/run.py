"""Compare methods: every cell of methods x seeds x forget sets, over originals and references from the bank."""

import copy
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import seed_everything

from lightning_unlearn.benchmark.comparison import Comparison, ForgetSet, reference_seeds
from lightning_unlearn.benchmark.repair import baselines
from lightning_unlearn.benchmark.settings import check_settings, training_settings
from lightning_unlearn.benchmark.tuning import development_draw, tune_method
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.cautions import of_copies, of_originals
from lightning_unlearn.chain.identity import digest, setup_of
from lightning_unlearn.chain.methods import Method, load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.detection.curves import detect_on_original
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.ranks import barrier, is_first, lock_on_first, method_failures
from lightning_unlearn.report.decode import decode, encode
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["benchmark"]

log = logging.getLogger(__name__)


def benchmark(
    what: Comparison,
    seeds: Sequence[int] = (0,),
    references: int = 2,
    tune: int = 0,
    noise_fractions: Sequence[float] = (),
    epochs: Sequence[int] = (),
) -> Report:
    """Run every method on every original and forget set, and compare the results with retrained references.

    Finished cells are read from the folder; originals and references come from the bank or are trained and kept there.

    Args:
        what: What is compared.
        seeds: Seeds of originals.
        references: Retrained references per forget set, at most 9; with fewer than two there is no level to compare with.
        tune: Settings of each method that are tried on a development forget set and original of other seeds than those
            reported; the best by unseen samples, `tuned/NAME_tuned.yaml` in the folder, is a row beside the published ones.
            0: published settings alone.
        noise_fractions: Shares of wrong labels in place of that of the data's label noise: every one is a benchmark of its own.
        epochs: Epochs of originals and references in place of the recipe's, likewise.

    Returns:
        The report.
    """
    chosen, sets = what.plan(seeds, references, tune)
    data, recipe = what.data, what.recipe
    check_settings(data, noise_fractions, epochs)
    for caution in of_copies(data):
        log.warning("%s", caution)
    recorded = any(isinstance(of.rule, DetectedMislabels) for of in sets)
    report: Report | None = None
    with lock_on_first(what.folder, again=True):
        notes: dict[str, str] = {}
        if tune:
            data.draw(*development_draw([(s.draw, s.rule) for s in sets]))
            original = what.trained("train", 10 * (max(seeds) // 10 + 1))
            for name in what.methods:
                path, note = tune_method(what.fresh, data, original, name, tune, what.folder)
                if path is not None:
                    chosen[path.stem] = load_method(str(path))
                notes[Path(name).stem if path is None else path.stem] = note
        for setting, forget_set in ((s, of) for s in training_settings(data, recipe, noise_fractions, epochs) for of in sets):
            runner = _Runner(replace(what, data=setting.data, recipe=setting.recipe), references, recorded)
            part = runner.run_named(setting.name, forget_set, seeds, chosen)
            if report is None:
                report = part
            else:
                report.requests += part.requests
                report.rows += part.rows
                report.levels.update(part.levels)
                report.curves += part.curves
        assert report is not None
        for row in report.rows:
            row.notes += [notes[row.method]] if row.method in notes else []
        originals = [(f"{row.request}, seed {row.seed}", row.metrics) for row in report.rows if row.role == "original"]
        for caution in of_originals(originals, data, recipe.build(0)):
            log.warning("%s", caution)
            report.warnings.append(caution)
        counts = (("method", len(chosen)), ("forget set", len(sets)), ("seed", len(seeds)))
        report.title = f"{data.dataset.name}: " + ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts)
        report.config = what.configuration
        if is_first():
            save_report(report, what.folder)
    return report


@dataclass
class _Runner:
    """Runs the cells of one forget set, or reads them where they are finished."""

    what: Comparison
    references: int
    recorded: bool = False

    @property
    def _first(self) -> list[UnlearningStage]:
        """What comes in front of each method."""
        return [] if self.what.preparation is None else self.what.preparation.kept()

    @property
    def _cautions(self) -> list[str]:
        """What the report must warn of."""
        if self.what.preparation is None:
            return []
        return [
            f"Originals and references went through {self.what.preparation.chain.path.stem} after their training; costs are "
            "shares of the training alone."
        ]

    def run_named(self, setting: str, of: ForgetSet, seeds: Sequence[int], methods: Mapping[str, Method]) -> Report:
        """The cells of a forget set of one training; a detection comes first where the rule asks for one."""
        rule, curves = of.rule, []
        if isinstance(rule, DetectedMislabels):
            assert of.original is not None
            where = (self.what.fresh, self.what.bank, self.what.recipe, self.what.data)
            rule, found = detect_on_original(*where, rule, of.original, setting, self.what.folder)
            curves, seeds = [found], [of.original]
        self.what.data.draw(of.draw, rule)
        name = f"{setting}: {of.name}" if setting else of.name
        request = request_of(self.what.data, name)
        panel = Panel(
            self.what.fresh,
            self.what.data,
            self.what.goal,
            request,
            self.what.relearn_epochs,
            retrain_epochs=self.what.recipe.max_epochs,
            cautions=self._cautions,
        )
        report = self.run(replace(of, name=name), panel, seeds, methods)
        report.curves = curves
        for row in report.rows:
            if curves and row.role == "method":
                row.metrics["time/detect_s"] = curves[0].detect_s
        return report

    def run(self, forget_set: ForgetSet, panel: Panel, seeds: Sequence[int], methods: Mapping[str, Method]) -> Report:
        report = new_report("benchmark", panel)
        name = forget_set.name
        seeds_of_references = reference_seeds(forget_set, self.references)
        common = self._common(forget_set)
        keys = {(m, seed): _key(common, m, seed, build.identity) for seed in seeds for m, build in methods.items()}
        head = _key(common, "panel", list(seeds), seeds_of_references)
        missing = {cell for cell, key in keys.items() if not self._is_finished(key)}
        if missing or not self._path(head).is_file():
            models = [self.what.trained("retain", seed) for seed in seeds_of_references]
            judges = panel.add_references(models, seeds_of_references)
            if self.what.goal == "repair":
                trained = baselines(self.what.bank, self.what.recipe, self.what.data, seeds)
                judges += [panel.add_baseline(*known) for known in trained]
            for seed in seeds:
                # Recorded at once where a detection will look at it, or it would be trained twice.
                recorder = RecordMargins() if self.recorded else None
                original = self.what.trained("train", seed, recorder)
                row = panel.add_original(original)
                row.seed = seed
                judges.append(row)
                for method, build in methods.items():
                    if (method, seed) not in missing:
                        continue
                    log.info("%s, seed %d: %s", name, seed, method)
                    begin = time.perf_counter()
                    seed_everything(1000 * seed + forget_set.number, verbose=False)
                    unlearned = copy.deepcopy(original)
                    try:
                        results = run_chain(self.what.fresh, unlearned, self.what.data, [*self._first, *build()])
                        row = panel.score(method, seed, unlearned, results)
                        row.notes += [result.warning for result in results if result.warning]
                    except method_failures() as error:
                        # A method that breaks on one forget set is a result: it is listed, and the others go on.
                        log.warning("%s failed on %s, seed %d: %s", method, name, seed, error)
                        row = Row(method, "method", name, seed, {}, notes=[f"failed: {error}"])
                    log.info("%s, seed %d: %s took %.1f s", name, seed, method, time.perf_counter() - begin)
                    self._write(keys[method, seed], row)
            self._write_text(head, json.dumps({"rows": encode(judges), "levels": panel.levels()}))
        barrier()
        record = json.loads(self._path(head).read_text())
        report.rows = [decode(Row, plain, "cell") for plain in record["rows"]]
        report.rows += [decode(Row, json.loads(self._path(key).read_text()), "cell") for key in keys.values()]
        if record["levels"]:
            report.levels[name] = record["levels"]
        return report

    def _common(self, forget_set: ForgetSet) -> list[object]:
        """What all cells of a forget set depend on."""
        common: list[object] = [
            *setup_of(self.what.fresh, self.what.data),
            self.what.bank.content(self.what.recipe, self.what.recipe.build(0), self.what.data, "train", 0),
            forget_set.name,
            forget_set.number,
            self.what.goal,
            self.what.relearn_epochs,
            self.references,
        ]
        if self.what.preparation is not None:
            # Only then, so that other cells keep their names.
            common.append(self.what.preparation.chain.identity)
        return common

    def _path(self, key: str) -> Path:
        return self.what.folder / "cells" / f"{key}.json"

    def _is_finished(self, key: str) -> bool:
        """Whether a cell's row is there; a method that failed is tried again."""
        path = self._path(key)
        return path.is_file() and not any(note.startswith("failed:") for note in json.loads(path.read_text())["notes"])

    def _write(self, key: str, row: Row) -> None:
        self._write_text(key, json.dumps(encode(row)))

    def _write_text(self, key: str, text: str) -> None:
        if not is_first():
            return
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self._path(key), text)


def _key(common: Sequence[object], what: str, seed: object, settings: object) -> str:
    """A cell is known by everything that it depends on."""
    return f"{what}-{digest([*common, what, seed, settings])}"
