"""What a benchmark, or an audit, compares: methods and forget sets, on models that are trained alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lightning.pytorch import LightningModule

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.bank.prepared import Preparation
from lightning_unlearn.benchmark.tuning import check_tuning
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.chain.methods import Method, load_method
from lightning_unlearn.chain.run import TrainerFactory, check_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.views import View
from lightning_unlearn.detection.curves import check_rule
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.metrics.screen import Goal

__all__ = ["Comparison", "ForgetSet", "check_preparation", "plan", "reference_seeds"]

# Forget sets are numbered; the references of number i have the seeds 10 i + 1, 10 i + 2 ...
_SEEDS_PER_SET = 10


@dataclass(frozen=True)
class Comparison:
    """What is compared, and where it is kept.

    Attributes:
        fresh: Makes a Trainer from `max_epochs`, `max_steps` and `callbacks`, or from `evaluation`.
        recipe: How originals and references are trained.
        data: The data; its own forget rule counts where `rules` is empty.
        methods: Names of shipped methods, or paths of YAML files with `stages`.
        folder: Where cells and the report are written.
        bank: Trained originals and references.
        draws: Seeds of the rules' draws.
        rules: Forget rules.
        goal: `untrain`, `remove-class` or `repair`.
        relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
        configuration: The exact configuration, YAML, for the report.
        preparation: What originals and references go through after their training; None: nothing.
    """

    fresh: TrainerFactory
    recipe: Recipe
    data: UnlearningDataModule
    methods: Sequence[str]
    folder: Path
    bank: Bank
    draws: Sequence[int] = (0,)
    rules: Sequence[ForgetRule] = ()
    goal: Goal = "untrain"
    relearn_epochs: int = 3
    configuration: str = ""
    preparation: Preparation | None = None

    def trained(self, view: View, seed: int, recorder: RecordMargins | None = None) -> LightningModule:
        """An original or a reference, from the bank or made now.

        Args:
            view: `train` for an original, `retain` for a reference.
            seed: Its seed.
            recorder: See `Bank.trained`; not for prepared models.

        Returns:
            The model on the CPU, in eval mode.
        """
        if self.preparation is not None:
            return self.preparation.prepared(self.bank, self.recipe, self.data, view, seed)
        return self.bank.trained(self.recipe, self.data, view, seed, recorder)

    def plan(self, seeds: Sequence[int], references: int, tune: int = 0) -> "tuple[dict[str, Method], list[ForgetSet]]":
        """See `plan`.

        Args:
            seeds: Seeds of originals.
            references: Retrained references per forget set, at most 9.
            tune: Settings of each method that are tried.

        Returns:
            Methods by name, and forget sets.
        """
        given = self.recipe.trainer
        how = (str(given.get("strategy", "auto")), tune, cast(int, given.get("accumulate_grad_batches") or 1))
        return plan(self.data, self.methods, seeds, self.draws, self.rules, references, *how)


@dataclass(frozen=True)
class ForgetSet:
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
    accumulate: int = 1,
) -> tuple[dict[str, Method], list[ForgetSet]]:
    """Read the methods and number the forget sets, before anything is written or computed.

    Args:
        data: See `Comparison`.
        methods: See `Comparison`.
        seeds: Seeds of originals.
        draws: See `Comparison`.
        rules: See `Comparison`.
        references: Retrained references per forget set, at most 9.
        strategy: Name of the Trainer's strategy.
        tune: Settings of each method that are tried on a development forget set; 0: none.
        accumulate: The Trainer's `accumulate_grad_batches`.

    Returns:
        Methods by name, and forget sets.

    Raises:
        ConfigError: There is no method, seed, draw or rule, or one stands twice, or there are more references than seeds for
            them.
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
    if references >= _SEEDS_PER_SET:
        raise ConfigError(
            f"benchmark: {references} references; needed: at most {_SEEDS_PER_SET - 1} for each forget set, or two sets would "
            "share seeds. Many models are compared by an audit: --tier audit --models 16."
        )
    for build in chosen.values():
        check_chain(build(), strategy, accumulate)
    sets = _forget_sets(rules, draws, seeds)
    taken = {seed for s in sets for seed in reference_seeds(s, references)} & set(seeds)
    if taken:
        raise ConfigError(
            f"benchmark: the seeds {sorted(taken)} of originals are those of references too, whose first weights would then be "
            "the same. References of forget set i have the seeds 10 i + 1, 10 i + 2 ...; give multiples of 10."
        )
    if tune:
        check_tuning(data, list(chosen.values()), [(s.draw, s.rule) for s in sets], tune)
    return chosen, sets


def check_preparation(
    prepare: str | None, rules: Sequence[ForgetRule | None], goal: Goal, compared: str, tune: int
) -> Preparation | None:
    """Read what originals and references go through, before anything is written or computed.

    Args:
        prepare: Its name or path; None: nothing.
        rules: Forget rules.
        goal: See `Comparison`.
        compared: The tier, `screen` or another.
        tune: Settings of each method that are tried.

    Returns:
        The preparation.

    Raises:
        ConfigError: It cannot be had together with the rest.
    """
    if prepare is None:
        return None
    if compared != "screen" or tune or goal == "repair" or any(isinstance(rule, DetectedMislabels) for rule in rules):
        raise ConfigError(
            "prepare is for the tier `screen` with published settings, and neither for repair nor for DetectedMislabels. For "
            "tuned ones run --tune without it, and give the files in its folder tuned/ as methods."
        )
    return Preparation.named(prepare)


def reference_seeds(forget_set: ForgetSet, count: int) -> list[int]:
    """Seeds of the references of a forget set.

    Args:
        forget_set: The forget set.
        count: How many, at most 9.

    Returns:
        Seeds that no other forget set's references have.
    """
    return [_SEEDS_PER_SET * forget_set.number + i + 1 for i in range(count)]


def _forget_sets(rules: Sequence[ForgetRule], draws: Sequence[int], seeds: Sequence[int]) -> list[ForgetSet]:
    sets: list[ForgetSet] = []
    for rule in rules:
        if isinstance(rule, DetectedMislabels):
            check_rule(rule)
            sets += [ForgetSet(rule, 0, len(sets) + i, f"{rule.describe()}, draw {s}", s) for i, s in enumerate(seeds)]
            continue
        for draw in draws:
            name = rule.describe() if len(draws) == 1 else f"{rule.describe()}, draw {draw}"
            sets.append(ForgetSet(rule, draw, len(sets), name))
    if len({s.name for s in sets}) < len(sets):
        raise DataError("Two forget sets have one name; needed: rules and draws that differ.")
    return sets
