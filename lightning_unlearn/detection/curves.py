"""A detection on an original of the bank, for `benchmark`: whom it suspects, and how well its scores tell wrong labels."""

import hashlib
import json
import time
from pathlib import Path

import torch
from torch import nn

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.chain.run import TrainerFactory
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.detected import DetectedMislabels
from lightning_unlearn.data.suspected import SuspectedMislabels
from lightning_unlearn.data.whole import whole
from lightning_unlearn.detection.record import MarginRecord
from lightning_unlearn.detection.run import SCORES, check_count, detect
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.functional.anatomy import head_name
from lightning_unlearn.functional.label_scores import auroc
from lightning_unlearn.ranks import barrier, is_first
from lightning_unlearn.report.decode import decode, encode
from lightning_unlearn.report.detect_schema import Curves

__all__ = ["check_rule", "detect_on_original"]

_SCORES = [name for name, kind in SCORES.items() if kind.needs != "folds"]


def check_rule(rule: DetectedMislabels) -> None:
    """Refuse what cannot be detected, before anything is trained.

    Args:
        rule: The rule.

    Raises:
        ConfigError: The score is unknown or needs further training, or count and quantile are out of range.
    """
    if rule.score not in _SCORES:
        raise ConfigError(f"DetectedMislabels: score is {rule.score!r}; needed: one of {', '.join(_SCORES)}.")
    Threshold(rule.count, rule.quantile)


def detect_on_original(
    fresh: TrainerFactory,
    bank: Bank,
    recipe: Recipe,
    data: UnlearningDataModule,
    rule: DetectedMislabels,
    seed: int,
    setting: str,
    folder: Path,
) -> tuple[SuspectedMislabels, Curves]:
    """Train an original with its course recorded, or take both from the bank, and score its training samples.

    A finished detection is read from the folder.

    Args:
        fresh: Makes a Trainer.
        bank: Where the original is found, or kept.
        recipe: How it is trained.
        data: The data.
        rule: What decides.
        seed: The original's.
        setting: Of label noise and epochs, in words.
        folder: Where the scores are written.

    Returns:
        The rule that chooses the suspects, and figures. A count that is not below the number of samples is a `ConfigError`
        before anything is trained.
    """
    every, threshold = whole(data), Threshold(rule.count, rule.quantile)
    check_count(every, threshold)
    content = f"{every.fingerprint('train')} {bank.content(recipe, recipe.build(seed), every, 'train', seed)} {vars(rule)}"
    place = folder / "detected" / hashlib.sha256(content.encode()).hexdigest()[:16]
    if not (place / "curves.json").is_file():
        begin, recorder = time.perf_counter(), RecordMargins()
        original = bank.trained(recipe, every, "train", seed, recorder)
        trained = time.perf_counter()
        record = MarginRecord.of(recorder.state_dict(), every)
        linear = isinstance(original.get_submodule(head_name(original)), nn.Linear)
        others = [name for name in _SCORES if name != rule.score and (linear or SCORES[name].needs != "features")]
        names = [rule.score, *others]
        found = detect(fresh, original, every, names, threshold, record)
        figures = found.decision(rule.score)
        wrong = torch.zeros(0) if found.wrong is None else found.wrong
        epochs = [auroc(losses.double(), wrong) for losses in record.losses] if found.wrong is not None else []
        curves = Curves(
            setting=setting,
            seed=seed,
            rule=rule.describe(),
            auroc={name: found.auroc(name) for name in names},
            by_epoch=epochs,
            suspected=int(found.suspected.sum()),
            wrong=int(wrong.sum()),
            precision=figures.precision,
            recall=figures.recall,
            f1=figures.f1,
            train_s=trained - begin,
            detect_s=time.perf_counter() - trained,
        )
        if is_first():
            place.mkdir(parents=True, exist_ok=True)
            found.save(place / "scores.csv")
            # Last: a folder with this file is finished.
            write_text_atomic(place / "curves.json", json.dumps(encode(curves)))
        barrier()
    plain = json.loads((place / "curves.json").read_text())
    return SuspectedMislabels(place / "scores.csv"), decode(Curves, plain, "curves")
