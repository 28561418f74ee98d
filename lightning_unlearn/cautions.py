"""What makes figures worth little although nothing failed: one sentence each, for the report and for the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from lightning_unlearn.data.as_trained import normalised_alike
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.saved_split import SavedSplit, saved_beside
from lightning_unlearn.data.split import copies_among
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.retrain_shards import RetrainShards
from lightning_unlearn.words import plural, were

__all__ = [
    "fallen_since",
    "loss_of_retained",
    "of_copies",
    "of_ensemble",
    "of_labels",
    "of_original",
    "of_originals",
    "of_reference",
    "of_relearning",
    "of_request",
    "of_split",
    "of_statistics",
]

# Percent. Below LOW a classifier is of use to nobody; near what it reaches on unseen samples, it has little to forget.
LOW, HIGH, NEAR = 60.0, 90.0, 2.0
_UNALTERED = "neither label noise nor a trigger"
# Percent of a part. Fewer copies of trained samples move no figure by as much.
COPIES = 1.0
# Points of retain accuracy that are said to be lost.
FALL = 5.0


def of_original(
    metrics: Mapping[str, float], data: UnlearningDataModule, model: nn.Module | None = None, cause: str | None = None
) -> list[str]:
    """Whether a model seems not to know its own training data.

    Args:
        metrics: Of the model before unlearning: `retain/acc` and, where known, `unseen/acc`, in percent.
        data: The data, for what the input is.
        model: The model. Members of a `Sisa` know one shard each, so all together they may know none by heart.
        cause: What usually is the cause, a sentence; None: of a model that was loaded.

    Returns:
        A sentence, or none.
    """
    retain, unseen = metrics["retain/acc"], metrics.get("unseen/acc")
    cause = cause or (
        f"The usual causes are an input of another size, or normalised otherwise, than in training (here: "
        f"{data.dataset.input}; image_size, mean and std of the data set change it), "
        "labels in another order, or weights that were not loaded."
    )
    if isinstance(model, Sisa):
        if retain >= LOW:
            return []
        cause = (
            f"Each of its {model.shards} members was trained on one shard alone: fewer shards make them stronger. Else: {cause}"
        )
    if retain < LOW:
        return [f"The original is right on {retain:.1f} % of the retained samples, which it was trained on. {cause}"]
    if unseen is not None and retain < HIGH and retain - unseen < NEAR:
        return [
            f"The original knows retained samples ({retain:.1f} %) no better than unseen ones ({unseen:.1f} %), so there is "
            f"little to forget. {cause}"
        ]
    return []


def of_originals(
    known: Sequence[tuple[str, Mapping[str, float]]], data: UnlearningDataModule, model: nn.Module | None = None
) -> list[str]:
    """Whether originals that a comparison trained itself seem not to know their own training data.

    Args:
        known: Of each original its name, and figures as `of_original` takes them.
        data: The data.
        model: A model of their kind; see `of_original`.

    Returns:
        A sentence on the first of them and how many there are, or none.
    """
    cause = "The usual causes are too few epochs or a learning rate that does not fit."
    doubtful = [(name, said) for name, metrics in known for said in of_original(metrics, data, model, cause)]
    if not doubtful:
        return []
    others = f" That is so of {len(doubtful)} of {len(known)} originals." if len(known) > 1 else ""
    return [f"{doubtful[0][0]}: {doubtful[0][1]}{others}"]


def of_ensemble(model: nn.Module, stages: Sequence[UnlearningStage]) -> list[str]:
    """Whether a method gives up what a SISA ensemble was trained for.

    Args:
        model: The model before unlearning.
        stages: The method.

    Returns:
        A sentence, or none.
    """
    others = dict.fromkeys(type(stage).__name__ for stage in stages if not isinstance(stage, RetrainShards))
    if not isinstance(model, Sisa) or not others:
        return []
    inexact = "" if stages[-1].exact else "the result is not exact, and "
    return [
        f"The model is a SISA ensemble, from which -c method/sisa deletes exactly. {' and '.join(others)} changes all its "
        f"members at once: {inexact}since no slices lie beside it, nothing can be deleted from it exactly later."
    ]


def of_labels(data: UnlearningDataModule, repair: bool) -> list[str]:
    """Whether accuracies count wrong labels as right.

    Args:
        data: The data, split.
        repair: Whether the goal is to repair wrong labels.

    Returns:
        A sentence, or none.
    """
    samples, unseen = data.part("unseen")
    if samples.true_targets is not None:
        wrong = int((samples.targets[unseen] != samples.true_targets[unseen]).sum())
        return [
            f"{wrong} of the {len(unseen)} unseen samples have wrong labels, as training samples do: unseen accuracy counts "
            "them as right, so it lies below test accuracy, and a better model may have a lower one."
        ] * (wrong > 0)
    from_training = len(unseen) > 0 and samples is not data.dataset.test
    too = "; those of unseen samples may be as wrong as those trained on" * from_training
    return [f"Which labels are wrong is not known: test labels are taken as right{too}."] if repair else []


def of_split(data: UnlearningDataModule) -> list[str]:
    """Whether samples stand for unseen that the checkpoint may have been trained on, or have other labels than it learnt.

    Args:
        data: The data, after the checkpoint's split was looked for.

    Returns:
        A sentence, or none.
    """
    if data.taken_to_know_all:
        return [
            "The model is taken to have seen all samples, since it forgot without data and no split of its original is known: "
            "those that its training left out as unseen count as trained. Give --data.unseen of that training (0.1 where none "
            "was given)."
        ]
    if data.saved is not None and data.saved.altered not in (None, data.altered):
        learnt, now = data.saved.altered or _UNALTERED, data.altered or _UNALTERED
        return [
            f"The checkpoint was trained with {learnt}, and the data now have {now}: what is called wrong or poisoned here is "
            "not what the model learnt. Give --data.label_noise and --data.trigger as fit had them."
        ]
    if data.saved is not None and _drawn_among_others(data, data.saved):
        return [
            "Samples went or came since the checkpoint was trained, and what an exact draw (swapped labels, a trigger) changes "
            "depends on all of them: some labels or images may be other ones than the model learnt. Train with flip or "
            "draw bernoulli where samples are to be deleted."
        ]
    if not data.unseen_taken_on_trust:
        return []
    return [
        f"unseen is {data.unseen:g} and no split.json beside the checkpoint names its samples: unless it was trained with "
        "this very split, it was trained on these samples, and comparisons with unseen ones say nothing. --data.unseen null "
        "takes half of the test set in their place."
    ]


def of_statistics(data: UnlearningDataModule) -> list[str]:
    """Whether the input of an exact method's model still depends on forgotten samples.

    Args:
        data: The data.

    Returns:
        A sentence, or none.
    """
    measured = [name for name in ("mean", "std") if data.dataset.measures and name not in data.dataset.given]
    if not measured:
        return []
    # What was recorded, and is no longer what the data give, may have been given then.
    unless = "" if data.dataset.as_given is None else ", unless they were given in the checkpoint's training"
    return [
        f"Exact but for the normalisation of the input: {' and '.join(measured)} {were(len(measured))} measured on all "
        f"training images, the forgotten ones among them{unless}. Where that matters, train with a mean and std of the data "
        "set that are given."
    ]


def of_request(data: UnlearningDataModule) -> list[str]:
    """Which samples that the request names do not count as forgotten, and which ones may be meant and are not known.

    Args:
        data: The data, split.

    Returns:
        Up to four sentences.
    """
    said = [data.parts.caution] if data.parts.caution else []
    earlier = set() if data.saved is None else {*data.saved.withdrawn}
    # Where a run is judged, its split has them already.
    withdrawn = len({*data.parts.never_trained} & {*data.parts.withdrawn, *earlier})
    if withdrawn:
        text = f"{_of_request(withdrawn)} never trained on and {_are(withdrawn)}"
        said.append(f"{text} not counted as forgotten, but withdrawn: in no part of the data from this run on.")
    if never := len(data.parts.never_trained) - withdrawn:
        text = f"{_of_request(never)} never trained on and {_are(never)} not counted."
        withdraws = data.forget_rule is not None and data.forget_rule.withdraws
        advice = " Unseen ones stay so; where they are to be withdrawn too, give ListedSamples."
        said.append(text if withdraws else text + advice)
    if before := len(data.parts.forgotten_before):
        what = "forgotten or withdrawn" if earlier & {*data.parts.forgotten_before} else "forgotten"
        said.append(f"{_of_request(before)} {what} before and {_are(before)} not counted.")
    return said


def _of_request(number: int) -> str:
    return f"{plural(number, 'sample')} of the request {were(number)}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def of_copies(data: UnlearningDataModule) -> list[str]:
    """Whether the model knows unseen or test samples since it was trained on exact copies, or that nobody looked for them.

    Args:
        data: The data, split.

    Returns:
        A sentence, or none.
    """
    parts = {name: data.part(name) for name in ("unseen", "test")}
    counts = copies_among(data.part("train"), list(parts.values()))
    if counts is None:
        return [
            "Exact copies of trained samples among unseen and test ones were not searched for: so many images would have to be "
            "read one at a time. Where there are any, figures take them for unknown."
        ]
    found = zip(parts.items(), counts, strict=True)
    said = [f"{n} of the {len(index)} {name} samples" for (name, (_, index)), n in found if 100 * n > COPIES * len(index)]
    if not said:
        return []
    return [
        f"{' and '.join(said)} have exactly the pixels of one that the model was trained on: comparisons with unseen samples "
        "(AUC, calibration, tuning) and test figures take them for unknown. Remove exact copies from the data."
    ]


def _drawn_among_others(data: UnlearningDataModule, saved: SavedSplit) -> bool:
    """Whether samples went or came, and labels or images are changed by a draw that depends on all samples."""
    noise, trigger = data.label_noise, data.trigger
    exact = (noise is not None and noise.swap is not None and noise.flip == "exact") or (
        trigger is not None and trigger.draw == "exact"
    )
    return exact and bool(saved.named) and saved.named != set(data.samples.keys)


def of_reference(path: str | Path, data: UnlearningDataModule) -> list[str]:
    """Whether a reference differs from the model by more than what was forgotten.

    Args:
        path: Its checkpoint.
        data: The data, with what is forgotten.

    Returns:
        A sentence, or none.
    """
    split = saved_beside(path)
    if split is None:
        return [
            f"Nothing says what {path} was trained on (no split.json beside it): that it is a reference, trained on the "
            "retained samples alone, is taken on trust."
        ]
    if not normalised_alike(data.dataset, split):
        return [
            f"{path} was trained with mean {split.mean} and deviation {split.std}, and is given the model's input ("
            f"{data.dataset.input}), so its figures are not those of a reference. Train it with fit --run, or the same mean "
            "and std."
        ]
    theirs = set(split.retain)
    samples, retain = data.part("retain")
    ours = {samples.keys[i] for i in retain.tolist()}
    if theirs == ours:
        return []
    return [
        f"{path} was trained on {len(ours & theirs)} of the {len(ours)} retained samples and on {len(theirs - ours)} "
        "others, so it differs from the model by more than what was forgotten. Train it on the same data with the same "
        "--data.unseen; 0 where the model was trained on everything."
    ]


def loss_of_retained(before: float, after: float) -> list[str]:
    """Whether a method wrecked what was to stay.

    Args:
        before: Retain accuracy of the original, 0 ... 1.
        after: Of the unlearned model.

    Returns:
        A sentence, or none.
    """
    fall = 100 * (before - after)
    if fall <= FALL:
        return []
    return [
        f"Retain accuracy fell by {fall:.1f} points, from {100 * before:.1f} to {100 * after:.1f} %: the method took more than "
        "what was to be forgotten."
    ]


def fallen_since(first: Mapping[str, float], now: Mapping[str, float], requests: int) -> tuple[str, bool]:
    """How accuracy went over several requests, none of which shows it alone.

    Args:
        first: `retain/acc` and `test/acc` of the model before the first request, percent; others are not looked at.
        now: The same of the model after the last one.
        requests: Number of requests.

    Returns:
        A sentence, empty where nothing is known, and whether an accuracy fell by more than can be let pass.
    """
    names = [name for name in ("retain/acc", "test/acc") if name in first and name in now]
    changes = [(name.partition("/")[0], first[name], now[name]) for name in names]
    said = [f"{part} accuracy went from {old:.1f} to {new:.1f} % ({new - old:+.1f} points)" for part, old, new in changes]
    text = f"Since the first original, {plural(requests, 'request')} ago, {' and '.join(said)}."
    return (text if said else ""), any(first[name] - now[name] > FALL for name in names)


def of_relearning(before: float, after: float) -> list[str]:
    """Whether retain-only fine-tuning harms even the original.

    Args:
        before: Retain accuracy of the original, 0 ... 1.
        after: After fine-tuning it on retained samples.

    Returns:
        A sentence, or none.
    """
    fall = 100 * (before - after)
    if fall <= FALL:
        return []
    return [
        f"Fine-tuning on retained samples lowered the original's own retain accuracy by {fall:.1f} points, to "
        f"{100 * after:.1f} %: it harms this model, so the relearn figures say nothing. --relearn_epochs 0 leaves them out."
    ]
