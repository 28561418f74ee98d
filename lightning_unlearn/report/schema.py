"""What a report holds, as plain dataclasses that survive JSON unchanged."""

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.audit_schema import Audit
from lightning_unlearn.report.decode import decode, encode
from lightning_unlearn.report.detect_schema import Curves, Detected
from lightning_unlearn.report.ledger_schema import PastRequest

__all__ = [
    "ClassAccuracy",
    "Details",
    "Kind",
    "Margins",
    "Report",
    "Request",
    "Roc",
    "Role",
    "Row",
    "StageRecord",
]

SCHEMA = 1
Kind = Literal["unlearn", "evaluate", "benchmark", "audit", "detect"]
Role = Literal["method", "original", "reference", "baseline"]


@dataclass
class Request:
    """One forget request, or one draw of a forget rule. The samples themselves are never part of a report.

    Attributes:
        name: For instance "random 4 %, draw 0"; the part before ", draw N" is the request's family.
        rule: The forget rule with its arguments.
        count: Samples to forget.
        of: Training samples that they were chosen from.
        digest: Hash over the sorted keys of the samples.
        copies_left: Exact copies of forgotten samples that stay in the retain set; None: not searched.
        never_trained: Samples that the request names and that were never trained on (not in `count`).
        gone: Samples of `count` whose files are gone, so that no figure is of them.
    """

    name: str
    rule: str
    count: int
    of: int
    digest: str
    copies_left: int | None = 0
    never_trained: int = 0
    gone: int = 0

    @property
    def judged(self) -> int:
        """Samples that figures are of."""
        return self.count - self.gone


@dataclass
class StageRecord:
    """What one stage took.

    Attributes:
        name: Its class.
        seconds: Wall time.
        work: Image passes: forward 1, backward 2.
        share: `work` as a share of retraining's, 0 ... 1 or more; NaN where that is not known.
        mask_on: Share of ones in the stage's mask, per layer, 0 ... 1; empty without a mask.
        requests: Of an exact method, what deleting random samples is expected to cost, by their number, as a share of training
            everything, 0 ... 1; else empty.
        found: What else it tells of itself: named groups of figures, such as the epoch that was chosen.
    """

    name: str
    seconds: float
    work: float = 0.0
    share: float = math.nan
    mask_on: dict[str, float] = field(default_factory=dict)
    requests: dict[str, float] = field(default_factory=dict)
    found: dict[str, dict[str, float]] = field(default_factory=dict)


class Margins(TypedDict, total=False):
    """Histograms of the margin over shared bins: B + 1 ascending edges, B counts for each part."""

    bins: list[float]
    forget: list[float]
    unseen: list[float]
    test: list[float]
    reference: list[float]


class Roc(TypedDict):
    """Operating points of the attack, ascending, 0 ... 1."""

    fpr: list[float]
    tpr: list[float]


# "class" is a keyword, which the class syntax refuses.
ClassAccuracy = TypedDict("ClassAccuracy", {"class": str, "forget": float | None, "retain": float | None, "test": float | None})
ClassAccuracy.__doc__ = "Accuracies of one class, in percent points; None where it has no samples."


class Details(TypedDict, total=False):
    """What the figures need beyond the metrics.

    `layers` is the relative change of each layer's weights, |w - w_original| / |w_original|.
    """

    margins: Margins
    roc: Roc
    per_class: list[ClassAccuracy]
    layers: dict[str, float]


@dataclass
class Row:
    """One model: unlearned, original, retrained reference, or trained otherwise to compare with (baseline).

    Attributes:
        method: Name of the method; for the other roles of the model.
        role: What the model is.
        request: Name of a `Request` of the same report.
        seed: Seed of the run.
        metrics: By name; any may be missing. Accuracies, `mia/efficacy`, `mia/svc`, `mia/tpr@1fpr`, `gap/*`,
            `relearn/*` and `churn` are in percent points (0 ... 100); AUCs, `tow` and `cost/share` (1 is
            retraining) are fractions; divergences are in nats, `time/*` in seconds, `memory/*` in MB.
            `streisand` is positive where the model is more confident on forgotten than on unseen samples.
            nan stands for a value that does not exist, such as a relearn time that was not reached.
        stages: What each stage took, in order.
        details: Histograms, curves and tables for the figures.
        notes: Sentences about this run, shown beside it.
        settings: The settings that make the run what it is, in one line.
        exact: Whether its method leaves nothing of the forgotten samples by construction, as retraining does.
        cautions: What its method says against its own figures, which holds wherever the model is judged again.
    """

    method: str
    role: Role
    request: str
    seed: int
    metrics: dict[str, float]
    stages: list[StageRecord] = field(default_factory=list)
    details: Details = field(default_factory=Details)
    notes: list[str] = field(default_factory=list)
    settings: str = ""
    exact: bool = False
    cautions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the lengths that the figures rely on.

        Raises:
            ConfigError: A histogram or a curve has parts that do not fit together.
        """
        margins = self.details.get("margins")
        if margins is not None:
            edges = margins.get("bins", [])
            for part, counts in margins.items():
                if part != "bins" and isinstance(counts, list) and len(counts) != len(edges) - 1:
                    raise ConfigError(
                        f"{self.method}: margins.{part} has {len(counts)} counts for {len(edges)} edges; "
                        "it needs one fewer than edges."
                    )
        roc = self.details.get("roc")
        if roc is not None and len(roc["fpr"]) != len(roc["tpr"]):
            raise ConfigError(f"{self.method}: roc has {len(roc['fpr'])} fpr for {len(roc['tpr'])} tpr.")


@dataclass
class Report:
    """A run's or a benchmark's results and all that is needed to show them.

    Attributes:
        kind: The command that made it.
        title: Shown on top.
        created: Time in ISO 8601, given by the caller so that the same seed can give the same report.
        goal: `untrain`, `remove-class` or `repair`.
        tier: `screen`, `audit` or `benchmark`; `detect` for a search for wrong labels.
        requests: What was to be forgotten.
        rows: One per model.
        levels: By request name: metric -> what it reads between two references; the difference of two
            references in `forget/acc`, `retain/acc`, `test/acc`, `mia/efficacy` may stand under `gap/ua`,
            `gap/ra`, `gap/ta`, `gap/mia`.
        config: The exact configuration, YAML.
        versions: Of the packages that matter.
        machine: What it ran on, in words.
        warnings: Shown before the results.
        audits: One per forget set; where there are some, they are what the report shows.
        history: The requests that the model went through, the last one this run's; see the run's ledger.
        detected: A search for wrong labels, where there was one; it is then what the report shows.
        curves: Searches for wrong labels on the originals of a benchmark.
        earlier: How many requests the model before this one, the row `original`, had gone through.
        first: Accuracies of the first original of these requests, in percent; empty where they are not known.
    """

    kind: Kind
    title: str
    created: str
    goal: str
    tier: str
    requests: list[Request] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    levels: dict[str, dict[str, float]] = field(default_factory=dict)
    config: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    warnings: list[str] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    history: list[PastRequest] = field(default_factory=list)
    detected: Detected | None = None
    curves: list[Curves] = field(default_factory=list)
    earlier: int = 0
    first: dict[str, float] = field(default_factory=dict)

    @property
    def is_later(self) -> bool:
        """Whether an earlier request made the model before this one. Early versions wrote that into the history alone."""
        return self.earlier > 0 or len(self.history) > 1

    def to_json(self) -> str:
        """Write the report as text.

        Returns:
            JSON, non-finite numbers as null.
        """
        plain = {"schema": SCHEMA, **_as_dict(encode(self))}
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Write the rows as text.

        Text that a spreadsheet would run as a formula gets a leading apostrophe; the JSON has the exact text.

        Returns:
            CSV, one line per model, and per group and stratum of an audit, a column per metric, stages summed.
        """
        lines: list[_Line] = []
        for row in self.rows:
            known = (row.role, row.method, row.request, str(row.seed), "", row.settings)
            lines.append((*known, row.stages, row.metrics, row.notes))
        for audit in self.audits:
            for of in audit.lines:
                words = [*([of.verdict] if of.verdict else []), *of.notes]
                lines.append((of.role, of.method, audit.request, "", of.stratum, "", [], of.metrics, words))
        for score in self.detected.scores if self.detected else []:
            figures = {part: getattr(score, part) for part in ("auroc", "precision", "recall", "f1", "suspected", "seconds")}
            lines.append(("score", score.name, "", "", "", score.threshold, [], figures, []))
        metrics = sorted({name for line in lines for name in line[7]})
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        strata = ["stratum"] * bool(self.audits)
        head = ["role", "method", "request", "seed", *strata, "settings", "stages_s", "stages_work", "stages_share"]
        writer.writerow([*head, *(_inert(name) for name in metrics), "notes"])
        for role, method, request, seed, stratum, settings, stages, found, notes in lines:
            text = [*map(_inert, (role, method, request)), seed, *[_inert(stratum)] * bool(self.audits), _inert(settings)]
            sums = [sum(getattr(stage, name) for stage in stages) for name in ("seconds", "work", "share")]
            values = [found.get(name, math.nan) for name in metrics]
            numbers = [repr(float(value)) if math.isfinite(value) else "" for value in [*sums, *values]]
            writer.writerow([*text, *numbers, _inert(" | ".join(notes))])
        # A lone surrogate (an undecodable file name) has no UTF-8 form.
        return out.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read a report.

        Args:
            path: A `report.json`, or the folder that holds it.

        Returns:
            The report.

        Raises:
            ConfigError: There is none, it is not JSON, or of another schema.
        """
        file = Path(path)
        file = file / "report.json" if file.is_dir() else file
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"Cannot read {file}: {error.strerror}. Give a run folder that holds a report.json.") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file} is not a report: broken JSON ({error}). Run the command again.") from error
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            found = plain.get("schema") if isinstance(plain, dict) else None
            raise ConfigError(f"{file} has schema {found!r}; this version reads schema {SCHEMA}.")
        del plain["schema"]
        try:
            return decode(cls, plain, "report")
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error


# Role, method, request, seed, stratum, settings, stages, metrics, notes.
_Line: TypeAlias = tuple[str, str, str, str, str, str, list[StageRecord], dict[str, float], list[str]]


def _as_dict(value: object) -> dict[str, object]:
    assert isinstance(value, dict)  # a dataclass always encodes to one
    return value


def _inert(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
