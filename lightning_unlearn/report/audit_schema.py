"""What a report holds of an audit over many models, as plain dataclasses that survive JSON unchanged."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["WHOLE", "Audit", "AuditLine", "AuditRole", "Exposed", "Histogram"]

# A method; what two groups of retrained models read; what the originals read.
AuditRole: TypeAlias = Literal["method", "zero", "ceiling"]

# The stratum that every method is judged on first.
WHOLE = "all forgotten"


@dataclass
class Histogram:
    """Counts of samples.

    Attributes:
        edges: B + 1 ascending edges.
        counts: B counts of this group against references.
        null: B counts of held-out references against references, the same samples; empty where there are none.
    """

    edges: list[float]
    counts: list[float]
    null: list[float] = field(default_factory=list)


@dataclass
class Exposed:
    """A forgotten sample that unlearned models give away.

    Attributes:
        key: Its key.
        label: Its class.
        rank_auc: Two-sided rank AUC of unlearned against reference models, 0.5 ... 1.
        margin: Mean margin of the unlearned models.
        reference_margin: Mean margin of the references.
    """

    key: str
    label: str
    rank_auc: float
    margin: float
    reference_margin: float


@dataclass
class AuditLine:
    """One group of models on one stratum of samples, against the references.

    Attributes:
        method: Name of the method; for the other roles of the group.
        role: What the group is.
        stratum: Which samples, and in which state the models are.
        samples: How many.
        models: Models of the group.
        metrics: By name; any may be missing. `rank_auc*` and `rmia/*auc*` are fractions, `ulira*`, accuracies and
            `rmia/tpr*` are in percent points, `klom*` in nats, `f*` plain; NAME/low and NAME/high are the ends of a 95 %
            interval over models, NAME/p is a p-value, NAME/p_holm the same after correction over the strata of the method (on
            all forgotten samples, a test of its own, it is NAME/p), NAME/null and NAME/null_sd say what permuted labels of
            models read. `f/of_null` is F / `f/null` of the same line. Accuracies in `f/final` are taken as given.
        verdict: In words; empty for zero and ceiling.
        notes: What a reader must know beside the figures.
    """

    method: str
    role: AuditRole
    stratum: str
    samples: int
    models: int
    metrics: dict[str, float]
    verdict: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Audit:
    """The audit of one forget set.

    Attributes:
        request: Name of its `Request`.
        controls: What the controls gave, in words.
        void: Why the audit says nothing; empty where its controls held.
        lines: Zero, methods and ceiling on every stratum.
        rank_aucs: Histogram of the per-sample rank AUC by method.
        kloms: Histogram of the per-sample KLoM by method; empty below the tier `benchmark`.
        rocs: Pooled RMIA on forgotten samples, `fpr` and `tpr` by method.
        exposed: The ten most exposed forgotten samples by method.
        notes: What a reader must know about the whole audit.
        unchecked: How many of the two controls could not be checked.
    """

    request: str
    controls: list[str]
    void: list[str]
    lines: list[AuditLine]
    rank_aucs: dict[str, Histogram] = field(default_factory=dict)
    kloms: dict[str, Histogram] = field(default_factory=dict)
    rocs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    exposed: dict[str, list[Exposed]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unchecked: int = 0

    def of(self, stratum: str = WHOLE) -> list[AuditLine]:
        """Lines of one stratum.

        Args:
            stratum: Its name.

        Returns:
            Zero, methods, ceiling, in the order of the audit.
        """
        return [line for line in self.lines if line.stratum == stratum]
