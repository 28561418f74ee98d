"""What each command does once its data, model, Trainer and folder are there."""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lightning_unlearn.audit.given import check_lists, checkpoints
from lightning_unlearn.audit.run import check_audit
from lightning_unlearn.benchmark.comparison import check_preparation, plan
from lightning_unlearn.benchmark.settings import check_settings
from lightning_unlearn.cli.fitting import EpochLines, in_a_line
from lightning_unlearn.cli.from_run import advice_without_data, files_of
from lightning_unlearn.cli.job import Job, newest_checkpoint
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.data.earlier import judge_as_saved, keep_forgotten, only_withdraws
from lightning_unlearn.detection.run import check_count
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.evaluation.collecting import check_relearning, collect_outputs
from lightning_unlearn.exceptions import AlreadyForgottenError, ConfigError, NothingKnownError, UnlearnError
from lightning_unlearn.files import write_atomic
from lightning_unlearn.loading import check_model
from lightning_unlearn.ranks import lock_on_first
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.table import show
from lightning_unlearn.requests.history import history_of
from lightning_unlearn.requests.ledger import UNLEARNED
from lightning_unlearn.requests.record import settle
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

__all__ = ["VERBS"]

log = logging.getLogger(__name__)


def fit(job: Job) -> None:
    """Train a model and keep its newest state; what an earlier request removed stays out.

    Args:
        job: The call.

    Raises:
        ConfigError: A reference of a run is to be trained on more than what that retained, a Sisa from a checkpoint, or a model
            that is frozen.
    """
    checkpoint = job.arguments["checkpoint"]
    if job.split_of is not None:
        if job.data.serving.view != "retain":
            raise ConfigError(f"fit --run trains a reference of {job.split_of}. Leave out --data.view, or give retain.")
        job.data.use_split_of(Path(job.split_of) / UNLEARNED, forgotten_is_removed=False)
    elif checkpoint is not None:
        if isinstance(job.model, Sisa):
            raise ConfigError("The members of a Sisa are drawn anew, so fit takes no --checkpoint for it. Leave it out.")
        history_of(checkpoint)  # refuses one that has lost what it was made to forget
        keep_forgotten(job.data, checkpoint)
    if {p.requires_grad for p in job.model.parameters()} == {False} and not isinstance(job.model, Sisa):
        raise ConfigError(f"fit: every parameter of {type(job.model).__name__} is frozen. Unfreeze what is to be trained.")
    with lock_on_first(job.path):
        _check(job, checkpoint)
        # Checking left eval mode, which Lightning would keep.
        job.model.train()
        job.begin(checkpoint)
        newest = newest_checkpoint(job.path) if job.folder.resumed else None
        if newest is not None and _is_finished(newest, job.trainer.max_epochs):
            job.say(f"{job.path} is finished: {newest}")
            return
        job.say(f"fit: {job.path}, seed {job.seed}" + (f", resumed at {newest}" if newest else ""))
        job.trainer.fit(job.model, datamodule=job.data, ckpt_path=newest)
    figures = in_a_line(job.trainer.callback_metrics)
    callbacks = job.trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
    # The line of the last epoch said them, where there was one.
    if figures not in ("", *(callback.figures for callback in callbacks if isinstance(callback, EpochLines))):
        job.say(figures)
    last = newest_checkpoint(job.path)
    if last is not None:
        job.say(f"checkpoint: {last}")


def unlearn(job: Job) -> None:
    """Make a model forget. Where it knows nothing of what is asked for, that is no error.

    Args:
        job: The call.
    """
    checkpoint = job.arguments["checkpoint"]
    finished = job.path / "unlearned.ckpt"
    if job.folder.resumed and finished.is_file():
        if job.folder.first:
            settle(job.path, job.arguments["keep_artifacts"])
        job.say(f"{job.path} is finished: {finished}, {job.path / 'report.html'}")
        return
    job.needs_weights(checkpoint)
    _warn_unfinished(checkpoint)
    job.data.use_split_of(checkpoint)
    _warn_without_effect(job)
    try:
        only_withdraws(job.data)
    except (AlreadyForgottenError, NothingKnownError) as nothing:
        job.say(f"nothing to do: {nothing} {checkpoint} stays as it is.")
        return
    _report(job, checkpoint, job.trainer.unlearn, job.arguments)
    job.say(f"checkpoint: {finished}")


def evaluate(job: Job) -> None:
    """Judge a model.

    Args:
        job: The call.

    Raises:
        ConfigError: There are no data to judge by.
    """
    if job.arguments["tier"] != "screen":
        _evaluate_many(job)
        return
    arguments = {**job.arguments, **({} if job.call.run is None else files_of(job.call.run, job.arguments))}
    job.config.update({key: value for key, value in arguments.items() if key in ("checkpoint", "original", "references")})
    if not job.data.dataset.has_images:
        raise ConfigError(advice_without_data(arguments, job.data.forget_rule))
    job.needs_weights(arguments["checkpoint"])
    job.data.use_split_of(arguments["checkpoint"], forgotten_is_removed=False)
    saved = job.data.saved is not None and bool(job.data.saved.forget)
    if job.unnamed_rule is not None and not saved:
        log.warning("%s", job.unnamed_rule)
    of_run = job.call.run is not None and not any(token.startswith("--data.forget") for token in job.call.arguments)
    if of_run or job.unnamed_rule is not None:
        judge_as_saved(job.data)
    _report(job, arguments["checkpoint"], job.trainer.evaluate, arguments)


def _evaluate_many(job: Job) -> None:
    """Audit lists of checkpoints; a call that cannot run is refused before the folder is taken.

    Args:
        job: The call.

    Raises:
        ConfigError: It was given a run, which holds one model.
    """
    given = job.arguments
    if job.call.run is not None:
        raise ConfigError("--run names one model, and an audit needs many. Give --unlearned and --references.")
    check_lists(given["tier"], {name: given[name] for name in ("checkpoint", "original")}, {})
    for name in ("unlearned", "references"):
        checkpoints(name, given[name])
    job.data.use_split_of(checkpoints("unlearned", given["unlearned"])[0], forgotten_is_removed=False)
    if job.unnamed_rule is not None:
        if job.data.saved is None or not job.data.saved.forget:
            log.warning("%s", job.unnamed_rule)
        judge_as_saved(job.data)
    _report(job, None, job.trainer.evaluate, given)


def benchmark(job: Job) -> None:
    """Compare methods.

    Args:
        job: The call.
    """
    given = job.arguments
    # First: a call that cannot run must not replace the config of finished cells.
    sets = (given["methods"], given["seeds"] or [0], given["draws"] or [0], given["rules"] or [], given["references"])
    check_relearning(given["relearn_epochs"])
    check_settings(job.data, given["noise_fractions"] or [], given["epochs"] or [])
    plan(
        job.data, *sets, strategy=job.trainer.strategy_name, tune=given["tune"], accumulate=job.trainer.accumulate_grad_batches
    )
    rules = given["rules"] or [job.data.forget_rule]
    check_preparation(given["prepare"], rules, given["goal"], given["tier"], given["tune"])
    if given["tier"] != "screen":
        check_audit(job.trainer.fresh, given["models"], given["processes"], given["seeds"], given["tune"], rules)
    _report(job, None, job.trainer.benchmark, given)


def scores(job: Job) -> None:
    """Score training samples.

    Args:
        job: The call.
    """
    with lock_on_first(job.path):
        job.begin(None)
        job.say(f"scores: {job.path}, seed {job.seed}")
        found = job.trainer.scores(job.model, job.data, **{**job.arguments, "output": str(job.path)})
    memorised = int((found.memorisation >= 0.5).sum())
    job.say(f"{memorised} of {len(found.keys)} samples have a memorisation of 0.5 or more")
    job.say(f"scores: {job.path / 'scores.csv'}")


def detect(job: Job) -> None:
    """Find samples whose label is likely wrong.

    Args:
        job: The call.
    """
    checkpoint = job.arguments["checkpoint"]
    job.needs_weights(checkpoint)
    job.data.use_split_of(checkpoint)
    given = job.arguments
    check_count(job.data, Threshold(given["count"], given["quantile"]))
    with lock_on_first(job.path):
        job.begin(checkpoint)
        job.say(f"detect: {job.path}, seed {job.seed}")
        job.trainer.detect(job.model, job.data, **{**job.arguments, "output": str(job.path)})
    if job.folder.first:
        show(Report.load(job.path))
    job.say(f"scores: {job.path / 'scores.csv'}")
    job.say(f"report: {job.path / 'report.html'}")


def validate(job: Job) -> None:
    """Accuracy on unseen samples.

    Args:
        job: The call.

    Raises:
        ConfigError: There are none.
    """
    if not len(job.data.part("unseen")[1]):
        raise ConfigError(f"There are no unseen samples to validate on. {job.data.unseen_remedy} Or use the command test.")
    _measure(job, job.trainer.validate)


def test(job: Job) -> None:
    """Accuracy on test samples.

    Args:
        job: The call.
    """
    _measure(job, job.trainer.test)


def predict(job: Job) -> None:
    """Write logits, targets and sample indices of every part to `outputs.npz`.

    Args:
        job: The call.
    """
    with lock_on_first(job.path):
        _start_with(job)
        outputs = collect_outputs(job.trainer.fresh, job.model, job.data)
        arrays = {
            f"{part}/{name}": getattr(values, name).numpy()
            for part, values in outputs.items()
            for name in ("logits", "targets", "index")
        }
        if job.folder.first:
            write_atomic(job.path / "outputs.npz", lambda file: np.savez_compressed(file, **arrays))
    job.say(f"outputs: {job.path / 'outputs.npz'}")


VERBS: Mapping[str, Callable[[Job], None]] = {
    "fit": fit,
    "unlearn": unlearn,
    "evaluate": evaluate,
    "benchmark": benchmark,
    "detect": detect,
    "scores": scores,
    "validate": validate,
    "test": test,
    "predict": predict,
}


def _report(job: Job, checkpoint: str | None, method: Callable[..., Report], arguments: Mapping[str, object]) -> None:
    """Run a method that reports; the folder is held from its first file to its last."""
    with lock_on_first(job.path):
        job.begin(checkpoint)
        job.say(f"{job.call.command}: {job.path}, seed {job.seed}")
        report = method(job.model, job.data, **{**arguments, "output": str(job.path)})
    if job.folder.first:
        show(report)
    job.say(f"report: {job.path / 'report.html'}")


def _measure(job: Job, method: Callable[..., list[Mapping[str, float]]]) -> None:
    with lock_on_first(job.path):
        _start_with(job)
        figures = method(job.model, datamodule=job.data, verbose=False)
    job.say(in_a_line({name: value for part in figures for name, value in part.items()}))


def _start_with(job: Job) -> None:
    checkpoint = job.arguments["checkpoint"]
    job.needs_weights(checkpoint)
    job.data.use_split_of(checkpoint, forgotten_is_removed=False)
    _check(job, checkpoint)
    job.begin(checkpoint)
    job.say(f"{job.call.command}: {job.path}, seed {job.seed}")


def _check(job: Job, checkpoint: str | None) -> None:
    check_model(job.model, job.data, checkpoint)


def _is_finished(checkpoint: Path, max_epochs: int | None) -> bool:
    """Whether a training has ended; a checkpoint of inside the last epoch has the number of that epoch, too."""
    done = _epochs_in(checkpoint)
    return max_epochs is not None and done is not None and 0 <= max_epochs <= done


def _epochs_in(checkpoint: Path) -> int | None:
    """Epochs of the training that a checkpoint was saved by; None where it says nothing of them."""
    progress = AtomicCheckpointIO().load_checkpoint(checkpoint).get("loops", {}).get("fit_loop", {}).get("epoch_progress")
    # Processed, not completed: at an epoch's end checkpoints are written before it counts as completed.
    return None if progress is None else int(progress["current"]["processed"])


def _warn_unfinished(checkpoint: str | None) -> None:
    """Say that a `fit` did not reach its last epoch, as far as its folder tells; that it cannot be read is no error here."""
    if checkpoint is None:
        return
    run = RunFolder(Path(checkpoint).absolute().parent.parent)
    with contextlib.suppress(UnlearnError):
        if not run.begun or run.record().get("command") != "fit":
            return
        trainer = run.config().get("trainer")
        planned = trainer.get("max_epochs") if isinstance(trainer, dict) else None
        done = _epochs_in(Path(checkpoint)) if isinstance(planned, int) else None
        if done is not None and isinstance(planned, int) and done < planned:
            log.warning(
                "%s is of a training that reached %d of its %d epochs. Where it was killed, finish it first: fit --resume %s",
                *(checkpoint, done, planned, os.path.relpath(run.path)),
            )


def _warn_without_effect(job: Job) -> None:
    """Say what was typed although unlearning does not go by it. Configs that serve fit too may hold it."""
    typed = {token.partition("=")[0] for token in job.call.arguments}
    if "--data.unseen" in typed and job.data.saved is not None and not job.data.unseen_taken_on_trust:
        log.warning("--data.unseen has no effect: split.json beside the checkpoint says which samples are unseen.")
    for name in sorted(typed & {"--trainer.max_epochs", "--trainer.max_steps"}):
        log.warning("%s has no effect: stages have lengths of their own, which the method's config gives.", name)
