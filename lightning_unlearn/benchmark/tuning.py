"""Choose settings of methods on a development forget set, by what whoever unlearns has: retained and unseen samples."""

import contextlib
import copy
import itertools
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.pytorch import LightningModule, seed_everything

from lightning_unlearn.chain.identity import digest, setup_of
from lightning_unlearn.chain.methods import Method, load_method
from lightning_unlearn.chain.run import TrainerFactory, run_chain
from lightning_unlearn.chain.settings import sources_of
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.metrics.unseen_match import distance_to_unseen
from lightning_unlearn.random import generator
from lightning_unlearn.ranks import barrier, is_first, method_failures
from lightning_unlearn.weights.fingerprint import hash_of_weights

__all__ = [
    "Trial",
    "best_trial",
    "check_tuning",
    "development_draw",
    "settings_to_try",
    "tune_method",
    "with_factors",
]

log = logging.getLogger(__name__)

# Points of retain accuracy that chosen settings may cost.
MAX_RETAIN_DROP = 5.0
Factors = dict[str, float]


@dataclass
class Trial:
    """One setting of a method, tried once.

    Attributes:
        factors: What its settings are multiplied with, by their place in the file.
        distance: `margin_advantage` between forgotten and unseen samples, 0 ... 1; NaN where it failed.
        retain: Accuracy on retained samples, percent; NaN where it failed.
        seconds: Wall time of its stages and of the passes that judge it, or until it failed.
        work: Image passes of its stages; 0 where it failed.
        failed: Why it gave nothing.
    """

    factors: Factors
    distance: float = math.nan
    retain: float = math.nan
    seconds: float = 0.0
    work: float = 0.0
    failed: str = ""


def development_draw(draws: Sequence[tuple[int, ForgetRule]]) -> tuple[int, ForgetRule]:
    """A draw of the first rule that is not reported.

    Args:
        draws: Seed and rule of each forget set that is.

    Returns:
        Seed and rule.
    """
    return max(seed for seed, _ in draws) + 1, draws[0][1]


def check_tuning(
    data: UnlearningDataModule, methods: Sequence[Method], draws: Sequence[tuple[int, ForgetRule]], count: int
) -> None:
    """Refuse to choose settings on what is reported, or where there is nothing to choose by.

    Args:
        data: The data; stays as it is.
        methods: What is tuned.
        draws: Seed and rule of each forget set that is reported.
        count: How many settings of each method are tried.

    Raises:
        ConfigError: The development forget set is a reported one, there are no unseen samples, a method trains on them, a rule
            is `DetectedMislabels`, or `count` is negative.
    """
    if count < 0:
        raise ConfigError(f"tune is {count}; needed: how many settings of each method are tried, or 0.")
    if any(isinstance(rule, DetectedMislabels) for _, rule in draws):
        raise ConfigError(
            "tune: DetectedMislabels has a forget set on each original that is reported, and none to choose settings on. Tune "
            "without this rule, and give the files in the folder tuned/ as methods to a benchmark with it."
        )
    for method in methods:
        with_factors(method.content, dict.fromkeys(method.grid, 1.0))
        if any(stage.trains_on_unseen for stage in method()):
            raise ConfigError(
                f"tune: {method.path.stem} trains on the unseen samples, by which settings are chosen. Benchmark it without "
                "--tune, or tune the other methods in a benchmark of their own."
            )
    seed, rule, prints = data.forget_seed, data.forget_rule, []
    try:
        for draw in [development_draw(draws), *draws]:
            data.draw(*draw)
            prints.append(data.fingerprint("forget"))
    finally:
        data.forget_rule = rule
        data.draw(seed)
    if prints[0] in prints[1:]:
        raise ConfigError(
            "tune: another draw of the first rule forgets the same samples, so settings would be chosen on a forget set that "
            "is reported. Put a random rule first, or tune in a benchmark of its own and give the files in its folder tuned/."
        )
    if len(data.part("unseen")[1]) == 0:
        raise ConfigError("tune: there are no unseen samples to choose by. Give --data.unseen 0.1.")


def settings_to_try(grid: Mapping[str, Sequence[float]], count: int) -> list[Factors]:
    """The published settings, then random ones of the grid, none twice, then random ones between them.

    Every method of a table gets as many, however coarse its grid is.

    Args:
        grid: Factors by place.
        count: How many, at least 1.

    Returns:
        `count`, or as many as the grid has where each place has a single factor.
    """
    every = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
    published = dict.fromkeys(grid, 1.0)
    others = [factors for factors in every if factors != published]
    drawn = torch.randperm(len(others), generator=generator("tune", seed=0)).tolist()
    tried = [published, *(others[i] for i in drawn[: count - 1])]
    ends = {place: (math.log(min(factors)), math.log(max(factors))) for place, factors in grid.items()}
    if all(low == high for low, high in ends.values()):
        return tried
    source = generator("tune: between", seed=0)
    for _ in range(count - len(tried)):
        places = torch.rand(len(ends), generator=source).tolist()
        between = zip(ends.items(), places, strict=True)
        tried.append({place: math.exp(low + at * (high - low)) for (place, (low, high)), at in between})
    return tried


def with_factors(content: Mapping[str, object], factors: Factors) -> dict[str, object]:
    """A method's file with some of its numbers multiplied; whole numbers stay whole, and at least 1.

    Args:
        content: Its `stages` and so on.
        factors: By place, such as `stages.0.init_args.alpha`.

    Returns:
        A copy.

    Raises:
        ConfigError: There is no number at a place.
    """
    changed: dict[str, object] = copy.deepcopy(dict(content))
    for place, factor in factors.items():
        *path, last = _path(place)
        node: Any = None
        value: object = None
        with contextlib.suppress(KeyError, IndexError, TypeError):
            node = reduce(getitem, path, cast(Any, changed))
            value = node[last]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"tune: there is no number at {place!r}; needed: the place of one in `stages`.")
        node[last] = max(1, round(value * factor)) if isinstance(value, int) else value * factor
    return changed


def best_trial(trials: Sequence[Trial], before: float, max_drop: float = MAX_RETAIN_DROP) -> int:
    """The setting after which forgotten samples are nearest to unseen ones, of those that keep the retained samples.

    Args:
        trials: What was tried, the published settings first.
        before: Retain accuracy of the original, percent.
        max_drop: Points of it that may be lost.

    Returns:
        Its number; of equal ones the cheapest; 0 where none keeps the retained samples.
    """
    allowed = [i for i, trial in enumerate(trials) if _fits(before, trial, max_drop) and math.isfinite(trial.distance)]
    return min(allowed, key=lambda i: (trials[i].distance, trials[i].work, i), default=0)


def tune_method(
    fresh: TrainerFactory,
    data: UnlearningDataModule,
    original: LightningModule,
    name: str,
    count: int,
    folder: Path,
) -> tuple[Path | None, str]:
    """Try settings of a method on a forget set, and write the best as a method of its own.

    Args:
        fresh: See `run_chain`.
        data: The data, with the development forget set; neither its test samples nor a reference is looked at.
        original: The development original; stays as it is.
        name: The method, a shipped name or a path.
        count: How many settings are tried, the published ones among them.
        folder: Where trials (`tuning/`) and the chosen settings (`tuned/`) are written; finished trials are not run again.

    Returns:
        The file of the chosen settings, None where they are the published ones; and a sentence on the choice for the report.
    """
    method = load_method(name)
    short, content = method.path.stem, method.content
    tried: dict[str, Factors] = {}
    for factors in settings_to_try(method.grid, count):
        text = yaml.safe_dump({"stages": with_factors(content, factors)["stages"]}, sort_keys=False)
        # Whole numbers are rounded, so that settings between those of the grid may be the same.
        tried.setdefault(text, factors)
    before = _retain(fresh, original, data)
    log.info(
        "tune %s: of settings that cost at most %.0f points of retain accuracy (%.1f), the one that leaves the least distance "
        "between forgotten and unseen samples, 0 to 1", short, MAX_RETAIN_DROP, before,
    )  # fmt: skip
    # Not of the test samples, which are not looked at.
    setup = setup_of(fresh, data, ("retain", "forget", "unseen"))
    known_by = [hash_of_weights(original), *setup, sources_of(method())]
    trials = []
    for i, (text, factors) in enumerate(tried.items()):
        path = folder / "tuning" / f"{short}-{i}-{digest([text, *known_by])}.yaml"
        known = path.with_suffix(".json").is_file()
        if not known:
            _write(path, f"# Trial {i + 1} of {len(tried)} of {short}: {_said(content, factors)}.\n{text}")
            barrier()
            trial = _run(fresh, data, original, Method(path), factors)
            _write(path.with_suffix(".json"), json.dumps(asdict(trial)))
            barrier()
        trial = Trial(**json.loads(path.with_suffix(".json").read_text()))
        trials.append(trial)
        told = trial.failed or f"distance {trial.distance:.3f}, retain accuracy {trial.retain:.1f}"
        told += "" if trial.failed or _fits(before, trial) else ", which is too low"
        took = "known" if known else f"{trial.seconds:.1f} s"
        log.info("tune %s, %d of %d (%s): %s (%s)", short, i + 1, len(tried), _said(content, factors), told, took)
    best = best_trial(trials, before)
    note = (
        f"Settings chosen from {len(trials)} trials in {sum(trial.seconds for trial in trials):.1f} s of wall time (their "
        "stages, and the passes that judge them; not the training of the original), on a development forget set and original "
        f"that are not reported, by unseen samples: {_said(content, trials[best].factors)}."
    )
    if not any(_fits(before, trial) for trial in trials):
        note += f" No setting kept retain accuracy within {MAX_RETAIN_DROP:.0f} points."
    if best == 0:
        return None, note
    chosen = folder / "tuned" / f"{short}_tuned.yaml"
    text = yaml.safe_dump({"stages": with_factors(content, trials[best].factors)["stages"]}, sort_keys=False)
    _write(chosen, f"# {short}. {note}\n{text}")
    barrier()
    return chosen, note


def _run(
    fresh: TrainerFactory, data: UnlearningDataModule, original: LightningModule, method: Method, factors: Factors
) -> Trial:
    trial, begin = Trial(factors), time.perf_counter()
    seed_everything(0, verbose=False)
    model = copy.deepcopy(original)
    try:
        results = run_chain(fresh, model, data, method())
        outputs = collect_outputs(fresh, model, data, ["forget", "unseen"])
        distance = distance_to_unseen(outputs["forget"], outputs["unseen"])
        retain, work = _retain(fresh, model, data), sum(result.work for result in results)
        trial = Trial(factors, math.nan if distance is None else distance, retain, work=work)
    except method_failures() as error:
        # Settings that break a network, or the memory, are a result: others are tried.
        trial.failed = f"failed: {error}"
    trial.seconds = time.perf_counter() - begin
    return trial


def _retain(fresh: TrainerFactory, model: LightningModule, data: UnlearningDataModule) -> float:
    return 100 * collect_outputs(fresh, model, data, ["retain"])["retain"].accuracy


def _fits(before: float, trial: Trial, max_drop: float = MAX_RETAIN_DROP) -> bool:
    """Whether a trial keeps the retained samples."""
    return before - trial.retain <= max_drop


def _said(content: Mapping[str, Any], factors: Factors) -> str:
    """Settings in words, without those that stay as published."""
    changed, words = with_factors(content, factors), []
    for place, factor in factors.items():
        if factor == 1:
            continue
        path = _path(place)
        old, new = (reduce(getitem, path, of) for of in (content, changed))
        stage = str(content["stages"][path[1]]["class_path"]).rpartition(".")[2]
        named = place.partition("init_args.")[2] if isinstance(path[-1], int) else path[-1]
        words.append(f"{stage} {named} {new:g} for {old:g}")
    return ", ".join(words) or "as published"


def _path(place: str) -> list[Any]:
    """The keys and numbers that lead to a place."""
    return [int(word) if word.isdigit() else word for word in place.split(".")]


def _write(path: Path, text: str) -> None:
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, text)
