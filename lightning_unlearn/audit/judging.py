"""From the answers of many models to an audit: statistics beside their zero and ceiling, controls, verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_unlearn.attacks.rank_auc import rank_auc
from lightning_unlearn.attacks.ulira import MeanUlira
from lightning_unlearn.audit.answers import Answers
from lightning_unlearn.audit.controls import least_p, p_value, run_controls
from lightning_unlearn.audit.measures import LEVEL, MEASURES, PERMUTATIONS, measure, permutations_for, told_apart
from lightning_unlearn.audit.statistics import compare, membership, membership_scores, pooled_roc
from lightning_unlearn.audit.strata import Stratum
from lightning_unlearn.functional.permutation import DetectableShift, PermutationTest, holm, smallest_detectable_shift
from lightning_unlearn.metrics.forgetting_score import final_score
from lightning_unlearn.metrics.klom import klom
from lightning_unlearn.report.audit_schema import WHOLE, Audit, AuditLine, AuditRole, Exposed, Histogram
from lightning_unlearn.report.labels import number

__all__ = ["CEILING", "ZERO", "Contender", "Judge"]

ZERO, CEILING = "held-out references", "original"
# Of KLoM and F, which no verdict rests on: enough for the mean and deviation of their nulls.
FEWER_PERMUTATIONS = 199
# Fewer models than this a side, and KLoM and F say little beside their zeros.
ENOUGH_MODELS = 100
REFERENCES_OF_RMIA = 4
EXPOSED = 10
BINS = 20


@dataclass(frozen=True, eq=False)
class Contender:
    """A group of models that is compared with the references.

    Attributes:
        name: Its name.
        role: What it is.
        answers: Of its models.
        others: Of models that never saw the forgotten samples, for attacks that need non-members; None: the references.
        no_shadows: Whether those should have gone through the same unlearning, and there are none that did: U-LiRA, and RMIA
            of forgotten samples, are then left out.
        against: The references that it is compared with, where they are not those of the judge.
        note: What must stand beside its figures.
        exact: Whether it is exact by construction.
        costs: Metrics that are no comparison: seconds, share of retraining.
    """

    name: str
    role: AuditRole
    answers: Answers
    others: Answers | None = None
    against: Answers | None = None
    note: str = ""
    exact: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)
    no_shadows: bool = False


@dataclass
class Judge:
    """Compares groups of models with the references of one forget set.

    All forgotten samples together are a test of their own, whose p-value stands as it is; those of a method's strata are
    corrected for their number (Holm). So a leak of all is not missed because there are many classes.

    Attributes:
        references: Answers of the references.
        strata: What is judged on its own; all forgotten samples first.
        benchmark: Whether KLoM and the forgetting score are computed too.
        seed: Seed of permutations and bootstraps.
        remaining: Which test samples are of classes that remain, (N,), bool; None: all.
    """

    references: Answers
    strata: Sequence[Stratum]
    benchmark: bool = False
    seed: int = 0
    remaining: Tensor | None = None
    _tests: dict[tuple[str, str], PermutationTest] = field(default_factory=dict, repr=False)
    _known: dict[tuple[int, str, int, int], Tensor] = field(default_factory=dict, repr=False)

    def audit(
        self, request: str, contenders: Sequence[Contender], keys: Sequence[str] = (), labels: Sequence[str] = ()
    ) -> Audit:
        """Judge all groups.

        Args:
            request: Name of the forget set.
            contenders: Zero (where there is one) first, then methods, then the ceiling (where there is one).
            keys: Keys of the forgotten samples, for the table of the most exposed ones; empty: no table.
            labels: Their classes.

        Returns:
            The audit.
        """
        lines = [self._line(contender, stratum) for contender in contenders for stratum in self._strata_of(contender)]
        audit = Audit(request, [], [], lines)
        _relate_to_null(audit)
        run_controls(audit, {contender.name: len(self._against(contender)) for contender in contenders})
        for contender in contenders:
            self._verdicts(audit, contender)
        self._figures(audit, contenders, keys, labels)
        self._notes(audit, any(c.role == "method" and c.others is not None for c in contenders))
        return audit

    def _strata_of(self, contender: Contender) -> list[Stratum]:
        """Those that both sides answered to."""
        there = contender.answers.margins.keys() & self.references.margins.keys()
        return [stratum for stratum in self.strata if stratum.part in there]

    def _tests_with(self, contender: Contender, stratum: str) -> int:
        """How many tests a p-value is corrected for."""
        return 1 if stratum == WHOLE else sum(other.name != WHOLE for other in self._strata_of(contender))

    def _line(self, contender: Contender, stratum: Stratum) -> AuditLine:
        own, references = stratum.of(contender.answers), stratum.of(self._against(contender))
        metrics: dict[str, float] = {}
        whole = stratum.name == WHOLE
        source = self._generator() if whole else None
        # Only the p-values of methods are corrected.
        tests = self._tests_with(contender, stratum.name) if contender.role == "method" else 1
        test = measure(metrics, "rank_auc", own, references, PERMUTATIONS, self._generator(), source)
        more = permutations_for(tests)
        # Only where they can decide. Drawn afresh, so that their p-value stands by itself.
        small = test.p <= 2 * max(LEVEL / tests, 1 / (1 + PERMUTATIONS))
        if more > PERMUTATIONS and small and least_p(len(own), len(references)) <= LEVEL / tests:
            test = measure(metrics, "rank_auc", own, references, more, self._generator(), source)
        self._tests[contender.name, stratum.name] = test
        compare(metrics, "ulira/references", MeanUlira(), own, references, source)
        others = self._against(contender) if contender.role == "zero" else contender.others
        if others is not None and stratum.part in others.margins and stratum.part != "retain":
            compare(metrics, "ulira", MeanUlira(), own, stratum.of(others), source)
        self._membership(metrics, contender, stratum)
        for part in ("forget", "retain", "test"):
            if whole and part in contender.answers.correct:
                metrics[f"{part}/acc"] = 100 * self._accuracy(contender.answers, part)
        if whole and self.remaining is not None:
            metrics["test_forgotten/acc"] = 100 * float(contender.answers.accuracy("test", ~self.remaining).mean())
        if self.benchmark:
            self._distances(metrics, contender, stratum)
        if whole:
            metrics |= contender.costs
        notes = [contender.note] if whole and contender.note else []
        return AuditLine(contender.name, contender.role, stratum.name, own.shape[1], len(own), metrics, notes=notes)

    def _accuracy(self, answers: Answers, part: str) -> float:
        """Mean over models, 0 ... 1; on test samples of the classes that remain."""
        return float(answers.accuracy(part, self.remaining if part == "test" else None).mean())

    def _membership(self, metrics: dict[str, float], contender: Contender, stratum: Stratum) -> None:
        """Pooled offline RMIA; not of retained samples, which the references that p(x) is taken from were trained on."""
        whole = stratum.name == WHOLE
        if stratum.part == "retain" or contender.no_shadows or not {"unseen", "test"} & contender.answers.margins.keys():
            return
        against = self._against(contender)
        for name, count in {"rmia": _references_of_rmia(against), "rmia1": 1}.items():
            members = self._scores(contender.answers, stratum.part, against, count)[:, stratum.mask]
            membership(
                metrics, name, members, self._non_members(contender, stratum, count), self._generator() if whole else None
            )

    def _against(self, contender: Contender) -> Answers:
        return self.references if contender.against is None else contender.against

    def _non_members(self, contender: Contender, stratum: Stratum, count: int) -> Tensor:
        """Scores of the same samples under models that never saw them."""
        others, against = contender.others, self._against(contender)
        if others is None or stratum.part not in others.margins:
            # References that p(x) is not taken from.
            return self._scores(against, stratum.part, against, count)[count:, stratum.mask]
        return self._scores(others, stratum.part, against, count)[:, stratum.mask]

    def _scores(self, group: Answers, part: str, references: Answers, count: int) -> Tensor:
        """`membership_scores`, computed once for all strata."""
        key = (id(group), part, id(references), count)
        if key not in self._known:
            self._known[key] = membership_scores(group, part, references, count)
        return self._known[key]

    def _distances(self, metrics: dict[str, float], contender: Contender, stratum: Stratum) -> None:
        """KLoM and the forgetting score."""
        answers, against = contender.answers, self._against(contender)
        groups = stratum.of(answers), stratum.of(against)
        whole = stratum.name == WHOLE
        compared = dict.fromkeys(["klom/median", "klom/p95"] + ["f"] * (stratum.part != "retain"), groups)
        for part in ("retain", "test"):
            if whole and part in answers.margins:
                mask = slice(None) if part == "retain" or self.remaining is None else self.remaining
                compared[f"klom/{part}_p95"] = answers.margins[part][:, mask], against.margins[part][:, mask]
        for name, (own, references) in compared.items():
            source = self._generator() if whole else None
            measure(metrics, name, own, references, FEWER_PERMUTATIONS, self._generator(), source)
        if not whole:
            return
        retain, test = ((self._accuracy(answers, part), self._accuracy(against, part)) for part in ("retain", "test"))
        for end in ("", "/low", "/high", "/null", "/null_sd"):
            if f"f{end}" in metrics:
                metrics[f"f/final{end}"] = final_score(metrics[f"f{end}"], retain, test)

    def _verdicts(self, audit: Audit, contender: Contender) -> None:
        lines = [line for line in audit.lines if line.method == contender.name]
        if contender.role != "method":
            return
        strata = {line.stratum: line.metrics["rank_auc/p"] for line in lines if line.stratum != WHOLE}
        corrected = dict(zip(strata, holm(list(strata.values())), strict=True))
        for line in lines:
            p = line.metrics["rank_auc/p_holm"] = corrected.get(line.stratum, line.metrics["rank_auc/p"])
            value, permuted = (number("rank_auc", line.metrics[key]) for key in ("rank_auc", "rank_auc/null"))
            if contender.exact:
                line.verdict = "exact by construction"
            elif audit.void:
                line.verdict = "void: the audit's controls failed"
            elif told_apart(p):
                figures = f"p = {p_value(p)}; rank AUC {value}, {permuted} with models permuted"
                line.verdict = f"distinguishable from retraining ({figures})"
            else:
                shift, words = self._detectable(contender, line.stratum)
                line.metrics["rank_auc/shift"] = shift.effect
                line.verdict = f"not distinguished at this power (smallest detectable shift: {words})"

    def _detectable(self, contender: Contender, stratum: str) -> tuple[DetectableShift, str]:
        """What the test would have found with a power of 80 %, of strata after Holm's first step; and in words."""
        samples = next(s for s in self.strata if s.name == stratum)
        groups = samples.of(contender.answers), samples.of(self._against(contender))
        test, level = self._tests[contender.name, stratum], LEVEL / self._tests_with(contender, stratum)
        if least_p(*map(len, groups)) > level:
            return DetectableShift(math.inf, math.inf), "none, there are too few models"
        statistic = MEASURES["rank_auc"].statistic
        shift = smallest_detectable_shift(statistic, *groups, test, level=level, generator=self._generator())
        too_few = 1 / (1 + len(test.null)) > level
        return shift, "none, there are too few permutations" if too_few else _shift(shift)

    def _figures(self, audit: Audit, contenders: Sequence[Contender], keys: Sequence[str], labels: Sequence[str]) -> None:
        groups = {c.name: (c.answers.margins["forget"], self._against(c).margins["forget"]) for c in contenders}
        aucs = {name: rank_auc(*pair) for name, pair in groups.items()}
        kloms = {name: klom(*pair) for name, pair in groups.items()} if self.benchmark else {}
        references = self.references.margins["forget"]
        zero = next((c.name for c in contenders if c.role == "zero"), "")
        for c in contenders:
            audit.rank_aucs[c.name] = _histogram(aucs[c.name], aucs.get(zero), 0.5, 1.0)
            if kloms:
                top = max(float(values.max()) for values in kloms.values())
                audit.kloms[c.name] = _histogram(kloms[c.name], kloms.get(zero), 0.0, top)
            if {"unseen", "test"} & c.answers.margins.keys() and not c.no_shadows:
                count = _references_of_rmia(self._against(c))
                members = self._scores(c.answers, "forget", self._against(c), count)
                audit.rocs[c.name] = pooled_roc(members, self._non_members(c, self.strata[0], count))
            if keys and c.role == "method":
                margins = c.answers.margins["forget"].mean(0)
                audit.exposed[c.name] = [
                    Exposed(keys[i], labels[i], float(aucs[c.name][i]), float(margins[i]), float(references[:, i].mean()))
                    for i in aucs[c.name].argsort(descending=True, stable=True)[:EXPOSED].tolist()
                ]

    def _notes(self, audit: Audit, shadowed: bool) -> None:
        """What every reader must know; of U-LiRA as it is meant only where other samples were unlearned in the same way."""
        refs = "U-LiRA, refs: against references that unlearned nothing."
        full = (
            "U-LiRA: unlearned models against held-out references that went through the same unlearning of as many other "
            f"samples, on the lines of zero and ceiling against references that unlearned nothing; {refs} Both leave one out. "
            "A few points above 50 % are no leak in U-LiRA: exactly retrained models read 53 to 54 % on digits, as the others "
            "saw fewer samples. RMIA has the same non-members as U-LiRA, and references "
            "after fine-tuning."
        )
        audit.notes.append(full if shadowed else f"{refs} It leaves one out.")
        if self.benchmark and len(self.references) < ENOUGH_MODELS:
            audit.notes.append(
                f"KLoM and F of {len(self.references)} models a side mean something only beside their zeros: both are far from "
                "their ideal values for groups that do not differ at all."
            )

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _relate_to_null(audit: Audit) -> None:
    """F as a share of what it reads of the same models permuted: F of other numbers of models would be another measure."""
    for found in (line.metrics for line in audit.lines if "f" in line.metrics):
        for end in ("", "/low", "/high", "/null", "/null_sd"):
            if f"f{end}" in found:
                found[f"f/of_null{end}"] = found[f"f{end}"] / found["f/null"]


def _references_of_rmia(references: Answers) -> int:
    """The rest of the references stand for models that never saw the samples, where there are no others."""
    return max(1, min(REFERENCES_OF_RMIA, len(references) // 2))


def _histogram(values: Tensor, null: Tensor | None, low: float, high: float) -> Histogram:
    edges = torch.linspace(low, max(high, low + 1e-9), BINS + 1, dtype=torch.float64)

    def counts(x: Tensor) -> list[float]:
        return torch.histogram(x.double().clamp(float(edges[0]), float(edges[-1])), edges).hist.tolist()

    return Histogram(edges.tolist(), counts(values), [] if null is None else counts(null))


def _shift(shift: DetectableShift) -> str:
    if not math.isfinite(shift.deviations):
        return "none, there are too few models"
    return f"{shift.deviations:.2g} standard deviations of every margin, which move the rank AUC by {shift.effect:.2g}"
