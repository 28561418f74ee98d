"""Audit models that the user trained and unlearned: lists of checkpoints in place of methods and a bank."""

import glob
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_unlearn.audit.answers import Answers, audited_samples
from lightning_unlearn.audit.cells import CHUNK, asked
from lightning_unlearn.audit.judging import CEILING, ZERO, Contender, Judge
from lightning_unlearn.audit.run import FEWEST_MODELS, AuditTier, check_audit
from lightning_unlearn.audit.strata import of_remaining_classes, strata_of
from lightning_unlearn.cautions import of_reference
from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forgotten_classes import knows_classes_alone, resolve_classes
from lightning_unlearn.data.saved_split import SavedSplit, saved_beside
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.exceptions import CheckpointError, ConfigError, DataError
from lightning_unlearn.loading import check_model, check_normalised, load_copy, load_reference
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.processes import one_thread
from lightning_unlearn.report.audit_schema import Audit
from lightning_unlearn.report.schema import Report
from lightning_unlearn.requests.history import Made, made_by
from lightning_unlearn.weights.fingerprint import hash_of_weights

__all__ = ["audit_given", "check_lists", "checkpoints"]

log = logging.getLogger(__name__)


def check_lists(tier: str, of_screen: Mapping[str, str | None], of_audit: Mapping[str, Sequence[str] | None]) -> None:
    """Refuse arguments of another tier, which would silently not count.

    Args:
        tier: The tier.
        of_screen: Arguments that judge one model, by name.
        of_audit: Arguments that judge many.

    Raises:
        ConfigError: One is given that does not belong to the tier.
    """
    foreign = [name for name, value in (of_audit if tier == "screen" else of_screen).items() if value]
    if foreign and tier == "screen":
        raise ConfigError(f"--{foreign[0]} was given, which belongs to an audit of many models. Add --tier audit.")
    if foreign:
        raise ConfigError(
            f"--{foreign[0]} was given, which belongs to the tier screen; an audit takes lists. Give --unlearned, "
            "--references, and where you have them --originals and --held_out."
        )


def checkpoints(what: str, given: Sequence[str] | None, fewest: int = FEWEST_MODELS) -> list[str]:
    """Paths of checkpoints, patterns such as `runs/a/*/unlearned.ckpt` replaced by the files that fit.

    Args:
        what: Name of the argument, for messages.
        given: Paths and patterns.
        fewest: How many files are needed.

    Returns:
        Paths, those of a pattern sorted.

    Raises:
        ConfigError: A pattern fits nothing, a file stands twice, or there are too few.
    """
    found: list[str] = []
    for entry in given or []:
        # A folder may have brackets in its name.
        is_pattern = any(c in entry for c in "*?[") and not Path(entry).exists()
        files = sorted(glob.glob(entry)) if is_pattern else [entry]
        if not files:
            raise ConfigError(f"--{what} {entry}: no file fits this pattern.")
        found += files
    resolved = [Path(file).resolve() for file in found]
    counts = Counter(resolved)
    twice = {file for file, path in zip(found, resolved, strict=True) if counts[path] > 1}
    if twice:
        raise ConfigError(f"--{what} names {min(twice)} twice; needed: another model each time.")
    if len(found) < fewest:
        raise ConfigError(
            f"--{what} names {len(found)} checkpoint{'s' * (len(found) != 1)}; needed: at least {fewest}, and 16 for an audit "
            'that sees anything. A pattern in quotes names many: "runs/mine/*/unlearned.ckpt".'
        )
    return found


def audit_given(
    fresh: TrainerFactory,
    model: LightningModule,
    data: UnlearningDataModule,
    unlearned: Sequence[str],
    references: Sequence[str],
    originals: Sequence[str] | None = None,
    held_out: Sequence[str] | None = None,
    tier: AuditTier = "audit",
    goal: Goal = "untrain",
    relearn_epochs: int = 0,
    int8: bool = True,
) -> Report:
    """Judge unlearned models against references, all of them given.

    Without held-out references the references are cut into two halves, one of which is compared with the other as a control;
    methods are compared with both together, and hardest or most memorised samples are left out.

    Args:
        fresh: Makes a Trainer.
        model: A model of the architecture.
        data: The data with its forget set.
        unlearned: Checkpoints of unlearned models, or patterns.
        references: Checkpoints of models retrained without the forgotten samples.
        originals: Checkpoints from before unlearning; None: the audit does not know whether it can see anything.
        held_out: Further references, for the control.
        tier: `benchmark` adds KLoM and the forgetting score.
        goal: What the report calls the aim.
        relearn_epochs: Epochs of retain-only fine-tuning, after which all models are compared again; 0: left out.
        int8: Whether they are compared again with weights rounded to 8 bits.

    Returns:
        The report.

    Raises:
        ConfigError: A model stands in two groups.
        DataError: Nothing says what was forgotten. A model that forgot other samples, or an original that was not trained on
            them, is a `CheckpointError`, as is a model of another normalisation than the first unlearned one.
    """
    check_audit(fresh, FEWEST_MODELS, None)
    paths = {"unlearned": checkpoints("unlearned", unlearned), "references": checkpoints("references", references)}
    paths["originals"] = checkpoints("originals", originals, FEWEST_MODELS if originals else 0)
    paths["held_out"] = checkpoints("held_out", held_out, FEWEST_MODELS if held_out else 0)
    resolved = [(str(Path(path).resolve()), name) for name, group in paths.items() for path in group]
    owner = dict(resolved)
    for path, name in resolved:
        if owner[path] != name:
            raise ConfigError(f"{path} is among --{name} and among --{owner[path]}; needed: one group for each model.")
    data.use_split_of(paths["unlearned"][0], forgotten_is_removed=False)
    if len(data.part("forget")[1]) == 0:
        raise DataError(
            "Nothing says what was forgotten: no forget rule was given and no split.json lies beside the first unlearned "
            "checkpoint. Give --data.forget."
        )
    _check_unlearned(paths["unlearned"], data)
    for path in paths["originals"]:
        _check_original(path, data)
    check_model(model, data, paths["unlearned"][0])
    _refuse_copies(model, data, paths)
    samples = audited_samples(data)

    def answers(group: str) -> Answers | None:
        chunks = []
        for i in range(0, len(paths[group]), CHUNK):
            models = [_loaded(model, path, data, group) for path in paths[group][i : i + CHUNK]]
            seeds = range(i, i + len(models))
            chunks.append(asked(fresh, data, samples, models, seeds, relearn_epochs, int8))
            log.info("%s: %d of %d models have answered", group, i + len(models), len(paths[group]))
        return Answers.joined(chunks) if chunks else None

    of = {group: answers(group) for group in paths}
    report = new_report("audit", Panel(fresh, data, goal, request_of(data), 0))
    report.tier = tier
    report.title = f"{data.dataset.name}: {len(paths['unlearned'])} unlearned models, {report.requests[0].name}"
    for caution in _of_references([*paths["references"], *paths["held_out"]], data):
        log.warning("%s", caution)
        report.warnings.append(caution)
    made = [made_by(path) for path in paths["unlearned"]]
    with one_thread():
        report.audits = [_judged(of, made, data, samples, report.requests[0].name, tier, relearn_epochs)]
    return report


def _check_unlearned(paths: Sequence[str], data: UnlearningDataModule) -> None:
    """See that all models forgot these samples, and retained the same, as far as splits beside them say so."""
    there, ours = set(data.samples.keys), _keys(data, "forget")
    first, of_first = "", dict[str, set[str]]()
    for path in paths:
        # One at a time: those of hundreds of models would fill the memory.
        saved = _resolved_split(path, data)
        if saved is None:
            continue
        forgotten = set(saved.forget) & there
        if not ours <= forgotten:
            raise CheckpointError(
                f"{path} forgot {len(ours & forgotten)} of the {len(ours)} samples that this audit is about, and "
                f"{len(forgotten - ours)} others. Needed: models that all forgot the same. Audit each request by itself."
            )
        parts = {"forget": forgotten, "retain": set(saved.retain) & there}
        if not first:
            first, of_first = path, parts
        for part, theirs in parts.items():
            known = of_first[part]
            if theirs != known and not (part == "retain" and knows_classes_alone(saved)):
                both, one, other = len(theirs & known), len(theirs - known), len(known - theirs)
                raise CheckpointError(
                    f"{path} and {first} {'forgot' if part == 'forget' else 'retained'} {both} samples in common, {one} that "
                    f"only the one did, and {other} that only the other. Needed: models of one training set (the same "
                    "--data.unseen and --data.split_seed) that all forgot the same."
                )


def _check_original(path: str, data: UnlearningDataModule) -> None:
    """See that a model was trained on all samples, as far as a split beside it says so."""
    saved = _resolved_split(path, data)
    trained = _keys(data, "train")
    if saved is None or knows_classes_alone(saved) or trained <= set(saved.retain):
        return
    raise CheckpointError(
        f"{path} is no original of these models: it was not trained on {len(trained - set(saved.retain))} of their "
        f"{len(trained)} samples, {len(_keys(data, 'forget') - set(saved.retain))} of the forgotten ones among them. Needed: "
        "models from before unlearning, of the same training set."
    )


def _of_references(paths: Sequence[str], data: UnlearningDataModule) -> list[str]:
    """What is doubtful about references, each doubt once: it is often that of all of them."""
    said = [(caution.replace(path, ""), caution) for path in paths for caution in of_reference(path, data)]
    counts = Counter(doubt for doubt, _ in said)
    first = dict(reversed(said))
    return [first[doubt] + (f" That is so of {n} of {len(paths)} references." if n > 1 else "") for doubt, n in counts.items()]


def _resolved_split(path: str, data: UnlearningDataModule) -> SavedSplit | None:
    saved = saved_beside(path)
    return None if saved is None else resolve_classes(saved, data.samples)


def _keys(data: UnlearningDataModule, part: Part) -> set[str]:
    samples, index = data.part(part)
    return {samples.keys[i] for i in index.tolist()}


def _refuse_copies(model: LightningModule, data: UnlearningDataModule, paths: Mapping[str, Sequence[str]]) -> None:
    """Load every file before any model answers; two with the same weights are one model, which is no evidence twice."""
    seen: dict[str, str] = {}
    for group, files in paths.items():
        for path in files:
            weights = hash_of_weights(_loaded(model, path, data, group))
            if weights in seen:
                raise ConfigError(f"{path} has the weights of {seen[weights]}; needed: models of trainings of their own.")
            seen[weights] = path


def _loaded(model: LightningModule, path: str, data: UnlearningDataModule, group: str) -> LightningModule:
    # All are given the input of the first unlearned one.
    if group in ("references", "held_out"):
        check_normalised(path, data)
        other = load_reference(model, path, data)
    else:
        other = load_copy(model, path, data)
    assert isinstance(other, LightningModule)
    return other


def _judged(
    of: Mapping[str, Answers | None],
    made: Sequence[Made],
    data: UnlearningDataModule,
    samples: Mapping[Part, Tensor],
    request: str,
    tier: AuditTier,
    relearn_epochs: int,
) -> Audit:
    references, unlearned, held_out, originals = (of[name] for name in ("references", "unlearned", "held_out", "originals"))
    assert references is not None
    assert unlearned is not None
    note = " ".join(dict.fromkeys(text for model in made for text in model.cautions))
    contenders = [Contender("unlearned", "method", unlearned, note=note, exact=all(model.exact for model in made))]
    if held_out is not None:
        contenders.insert(0, Contender(ZERO, "zero", held_out))
    elif len(references) >= 2 * FEWEST_MODELS:
        half = len(references) // 2
        contenders.insert(0, Contender(ZERO, "zero", references[half:], against=references[:half]))
    if originals is not None:
        contenders.append(Contender(CEILING, "ceiling", originals, held_out))
    forget, (of_samples, _) = samples["forget"], data.part("forget")
    keys = [of_samples.keys[i] for i in forget.tolist()]
    labels = [data.dataset.classes[i] for i in of_samples.targets[forget].tolist()]
    strata = strata_of(data, forget, unlearned, held_out, originals, relearn_epochs)
    judge = Judge(references, strata, tier == "benchmark", remaining=of_remaining_classes(data, samples["test"]))
    audit = judge.audit(request, contenders, keys, labels)
    audit.notes.append(
        "U-LiRA here is against retrained references: no models were given that unlearned other samples by the same method."
    )
    if held_out is None:
        halves = (
            "the zero is one half of the references against the other. Rank AUC and KLoM of smaller groups are higher and F is "
            "another, so compare a line with its own figures of permuted models; "
        )
        said = halves if contenders[0].role == "zero" else ""
        audit.notes.append(f"No held-out references were given: {said}hardest and most memorised samples were not looked for.")
    return audit
