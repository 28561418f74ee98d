"""Compare methods: every cell of methods x seeds x forget sets, over originals and references from the bank."""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import LightningModule, seed_everything

from lightning_unlearn import __version__
from lightning_unlearn.bank import Bank, Recipe
from lightning_unlearn.callbacks.recipe import RecipeCallback
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.chain import TrainerFactory, check_chain, run_chain
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.detection.curves import check_rule, detect_on_original
from lightning_unlearn.exceptions import ConfigError, DataError, UnlearnError
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.methods import Method, load_method
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.panel import Panel, new_report, request_of
from lightning_unlearn.ranks import barrier, is_first, lock_on_first
from lightning_unlearn.repair import baselines
from lightning_unlearn.report.decode import decode, encode
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.settings import check_settings, training_settings
from lightning_unlearn.training import stable_repr
from lightning_unlearn.tuning import check_tuning, development_draw, tune_method

__all__ = ["benchmark", "plan"]

log = logging.getLogger(__name__)

# Forget sets are numbered; the references of number i have the seeds 10 i + 1, 10 i + 2 ...
_SEEDS_PER_SET = 10


@dataclass(frozen=True)
class _ForgetSet:
    """One forget set: a rule and the seed of its draw; of a single original, where the rule looks at it."""

    rule: ForgetRule
    draw: int
    number: int
    name: str
    original: int | None = None


def plan(
    data: UnlearningDataModule,
    methods: Sequence[str],
    seeds: Sequence[int],
    draws: Sequence[int],
    rules: Sequence[ForgetRule],
    references: int,
    strategy: str = "auto",
    tune: int = 0,
) -> tuple[dict[str, Method], list[_ForgetSet]]:
    """Read the methods and number the forget sets, before anything is written or computed.

    Args:
        data: See `benchmark`.
        methods: See `benchmark`.
        seeds: See `benchmark`.
        draws: See `benchmark`.
        rules: See `benchmark`.
        references: See `benchmark`.
        strategy: Name of the Trainer's strategy.
        tune: See `benchmark`.

    Returns:
        Methods by name, and forget sets.

    Raises:
        ConfigError: There is no method, seed, draw or rule, or one stands twice.
    """
    chosen = {Path(name).stem: load_method(name) for name in methods}
    rules = list(rules) or ([] if data.forget_rule is None else [data.forget_rule])
    if not chosen or len(chosen) < len(methods) or not seeds or not draws or not rules:
        raise ConfigError(
            f"benchmark: {len(methods)} methods ({len(chosen)} different names), {len(seeds)} seeds, {len(draws)} draws and "
            f"{len(rules)} forget rules; needed: at least one of each, and one name per method."
        )
    if references < 0 or len(set(seeds)) < len(seeds) or len(set(draws)) < len(draws):
        raise ConfigError(
            f"benchmark: {references} references, seeds {list(seeds)}, draws {list(draws)}; needed: 0 or more references, and "
            "each seed and draw once."
        )
    for build in chosen.values():
        check_chain(build(), strategy)
    sets = _forget_sets(rules, draws, seeds)
    taken = {seed for s in sets for seed in _reference_seeds(s, references)} & set(seeds)
    if taken:
        raise ConfigError(
            f"benchmark: the seeds {sorted(taken)} of originals are those of references too, whose first weights would then be "
            "the same. References of forget set i have the seeds 10 i + 1, 10 i + 2 ...; give multiples of 10."
        )
    if tune:
        check_tuning(data, list(chosen.values()), [(s.draw, s.rule) for s in sets], tune)
    return chosen, sets


def benchmark(
    fresh: TrainerFactory,
    model: LightningModule,
    data: UnlearningDataModule,
    methods: Sequence[str],
    max_epochs: int,
    folder: str | Path,
    bank: str | Path,
    seeds: Sequence[int] = (0,),
    draws: Sequence[int] = (0,),
    rules: Sequence[ForgetRule] = (),
    references: int = 2,
    goal: Goal = "untrain",
    relearn_epochs: int = 3,
    recipe_arguments: Mapping[str, str | int | float | bool | list[int] | None] | None = None,
    configuration: str = "",
    callbacks: Sequence[RecipeCallback] = (),
    tune: int = 0,
    noise_fractions: Sequence[float] = (),
    epochs: Sequence[int] = (),
) -> Report:
    """Run every method on every original and forget set, and compare the results with retrained references.

    Finished cells are read from the folder; originals and references come from the bank or are trained and kept there.

    Args:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`, or from `evaluation`.
        model: The untrained classifier, with its optimiser and schedule.
        data: The data; its own forget rule counts where `rules` is empty.
        methods: Names of shipped methods, or paths of YAML files with `stages`.
        max_epochs: Epochs of originals and references.
        folder: Where cells and the report are written.
        bank: Folder of the bank.
        seeds: Seeds of originals.
        draws: Seeds of the rules' draws.
        rules: Forget rules.
        references: Retrained references per forget set; with fewer than two there is no level to compare with.
        goal: `untrain`, `remove-class` or `repair`.
        relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
        recipe_arguments: Further plain arguments of the Trainer that trains originals and references.
        configuration: The exact configuration, YAML, for the report.
        callbacks: What takes part in the training of originals and references.
        tune: Settings of each method that are tried on a development forget set and original of other seeds than those
            reported; the best by unseen samples, `tuned/NAME_tuned.yaml` in the folder, is a row beside the published ones.
            0: published settings alone.
        noise_fractions: Shares of wrong labels in place of that of the data's label noise: every one is a benchmark of its own.
        epochs: Epochs of originals and references in place of `max_epochs`, likewise.

    Returns:
        The report.
    """
    strategy = str((recipe_arguments or {}).get("strategy", "auto"))
    chosen, sets = plan(data, methods, seeds, draws, rules, references, strategy, tune)
    check_settings(data, noise_fractions, epochs)
    recorded = any(isinstance(of.rule, DetectedMislabels) for of in sets)
    recipe = Recipe(lambda: untrained_copy(model), max_epochs, dict(recipe_arguments or {}), callbacks)
    report: Report | None = None
    with lock_on_first(folder, again=True):
        notes: dict[str, str] = {}
        if tune:
            data.draw(*development_draw([(s.draw, s.rule) for s in sets]))
            original = Bank(bank).trained(recipe, data, "train", 10 * (max(seeds) // 10 + 1))
            for name in methods:
                path, note = tune_method(fresh, data, original, name, tune, Path(folder))
                chosen[path.stem] = load_method(str(path))
                notes[path.stem] = note
        for setting, forget_set in ((s, of) for s in training_settings(data, recipe, noise_fractions, epochs) for of in sets):
            kept = (Bank(bank), Path(folder), goal, relearn_epochs, references, recorded)
            runner = _Runner(fresh, setting.data, setting.recipe, *kept)
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
        counts = (("method", len(chosen)), ("forget set", len(sets)), ("seed", len(seeds)))
        report.title = f"{data.dataset.name}: " + ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts)
        report.config = configuration
        if is_first():
            save_report(report, folder)
    return report


@dataclass
class _Runner:
    """Runs the cells of one forget set, or reads them where they are finished."""

    fresh: TrainerFactory
    data: UnlearningDataModule
    recipe: Recipe
    bank: Bank
    folder: Path
    goal: Goal
    relearn_epochs: int
    references: int
    recorded: bool = False

    def run_named(self, setting: str, of: _ForgetSet, seeds: Sequence[int], methods: Mapping[str, Method]) -> Report:
        """The cells of a forget set of one training; a detection comes first where the rule asks for one."""
        rule, curves = of.rule, []
        if isinstance(rule, DetectedMislabels):
            assert of.original is not None
            where = (self.fresh, self.bank, self.recipe, self.data)
            rule, found = detect_on_original(*where, rule, of.original, setting, self.folder)
            curves, seeds = [found], [of.original]
        self.data.draw(of.draw, rule)
        name = f"{setting}: {of.name}" if setting else of.name
        request = request_of(self.data, name)
        panel = Panel(self.fresh, self.data, self.goal, request, self.relearn_epochs, retrain_epochs=self.recipe.max_epochs)
        report = self.run(replace(of, name=name), panel, seeds, methods)
        report.curves = curves
        for row in report.rows:
            if curves and row.role == "method":
                row.metrics["time/detect_s"] = curves[0].detect_s
        return report

    def run(self, forget_set: _ForgetSet, panel: Panel, seeds: Sequence[int], methods: Mapping[str, Method]) -> Report:
        report = new_report("benchmark", panel)
        name = forget_set.name
        reference_seeds = _reference_seeds(forget_set, self.references)
        keys = {
            (method, seed): self._key(forget_set, seed, method, stable_repr(build.settings))
            for seed in seeds
            for method, build in methods.items()
        }
        head = self._key(forget_set, list(seeds), "panel", reference_seeds)
        missing = {cell for cell, key in keys.items() if not self._is_finished(key)}
        if missing or not self._path(head).is_file():
            models = [self.bank.trained(self.recipe, self.data, "retain", seed) for seed in reference_seeds]
            judges = panel.add_references(models, reference_seeds)
            if self.goal == "repair":
                trained = baselines(self.bank, self.recipe, self.data, seeds)
                judges += [panel.add_baseline(*known) for known in trained]
            for seed in seeds:
                # Recorded at once where a detection will look at it, or it would be trained twice.
                recorder = RecordMargins() if self.recorded else None
                original = self.bank.trained(self.recipe, self.data, "train", seed, recorder)
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
                        results = run_chain(self.fresh, unlearned, self.data, build())
                        row = panel.score(method, seed, unlearned, results)
                        row.notes += [result.warning for result in results if result.warning]
                    except UnlearnError as error:
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

    def _key(self, forget_set: _ForgetSet, seed: object, what: str, settings: object) -> str:
        """A cell is known by everything that it depends on."""
        content = [
            self.data.fingerprint("retain"),
            self.data.fingerprint("forget"),
            self.data.fingerprint("unseen"),
            self.bank.content(self.recipe, self.recipe.build(0), self.data, "train", 0),
            forget_set.name,
            forget_set.number,
            seed,
            what,
            settings,
            self.goal,
            self.relearn_epochs,
            self.references,
            __version__,
        ]
        return f"{what}-{hashlib.sha256(json.dumps(content, default=stable_repr).encode()).hexdigest()[:16]}"

    def _path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

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


def _reference_seeds(forget_set: _ForgetSet, count: int) -> list[int]:
    return [_SEEDS_PER_SET * forget_set.number + i + 1 for i in range(count)]


def _forget_sets(rules: Sequence[ForgetRule], draws: Sequence[int], seeds: Sequence[int]) -> list[_ForgetSet]:
    sets: list[_ForgetSet] = []
    for rule in rules:
        if isinstance(rule, DetectedMislabels):
            check_rule(rule)
            sets += [_ForgetSet(rule, 0, len(sets) + i, f"{rule.describe()}, draw {s}", s) for i, s in enumerate(seeds)]
            continue
        for draw in draws:
            name = rule.describe() if len(draws) == 1 else f"{rule.describe()}, draw {draw}"
            sets.append(_ForgetSet(rule, draw, len(sets), name))
    if len({s.name for s in sets}) < len(sets):
        raise DataError("Two forget sets have one name; needed: rules and draws that differ.")
    return sets
