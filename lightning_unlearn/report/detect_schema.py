"""What a report holds of a search for wrong labels, as plain dataclasses that survive JSON unchanged."""

from dataclasses import dataclass, field

__all__ = ["Curves", "Detected", "Pair", "ScoreLine", "Suspect"]


@dataclass
class ScoreLine:
    """One score of all samples; where no truth is known, the last four figures are nan and `wrong` is empty.

    Attributes:
        name: Its name.
        title: What it is.
        seconds: What it took, passes that it shares with other scores included.
        threshold: Where suspects begin, in words.
        suspected: Number of suspects.
        limit: The smallest score of a suspect; nan where there is none.
        edges: B + 1 ascending edges.
        counts: Samples of each bin, all of them.
        wrong: Those of them whose label is wrong.
        log: Whether the axis is logarithmic.
        auroc: Area under the ROC curve, wrong against right labels.
        precision: Part of the suspects whose label is wrong.
        recall: Part of the wrong labels that are suspected.
        f1: Harmonic mean of both.
    """

    name: str
    title: str
    seconds: float
    threshold: str
    suspected: int
    limit: float
    edges: list[float]
    counts: list[float]
    wrong: list[float]
    log: bool
    auroc: float
    precision: float
    recall: float
    f1: float


@dataclass
class Suspect:
    """A sample whose label is likely wrong.

    Attributes:
        key: Its key.
        label: Its given label.
        suggested: The label that it would rather have.
        score: The deciding score.
        image: A PNG in base64, where pictures were asked for; else empty.
    """

    key: str
    label: str
    suggested: str
    score: float
    image: str = ""


@dataclass
class Pair:
    """Suspects of one class that look like another.

    Attributes:
        label: Their given label.
        suggested: What they would rather be.
        count: How many.
    """

    label: str
    suggested: str
    count: int


@dataclass
class Detected:
    """A search for wrong labels.

    Attributes:
        samples: Samples that were scored.
        known_wrong: How many have a wrong label; None where the truth is not known.
        suggestion_accuracy: Part of the wrong labels whose suggestion is the true one; nan where the truth is not known.
        scores: The scores; the first decides who is suspected.
        suspects: The most suspicious samples, the first one most.
        pairs: Which classes suspects are taken from and for, the most frequent first.
    """

    samples: int
    known_wrong: int | None
    suggestion_accuracy: float
    scores: list[ScoreLine]
    suspects: list[Suspect]
    pairs: list[Pair] = field(default_factory=list)


@dataclass
class Curves:
    """A search for wrong labels on one original of a benchmark; figures against the truth are nan where it is not known.

    Attributes:
        setting: Label noise and epochs, in words; may be empty.
        seed: Of the original.
        rule: Who is suspected, in words.
        auroc: Area under the ROC curve of every score, by its name.
        by_epoch: That of the loss in each epoch of training; empty where the truth is not known.
        suspected: Number of suspects.
        wrong: Number of wrong labels; 0 where the truth is not known.
        precision: Part of the suspects whose label is wrong.
        recall: Part of the wrong labels that are suspected.
        f1: Harmonic mean of both.
        train_s: Seconds of training the original, or of reading it.
        detect_s: Seconds of the detection.
    """

    setting: str
    seed: int
    rule: str
    auroc: dict[str, float]
    by_epoch: list[float]
    suspected: int
    wrong: int
    precision: float
    recall: float
    f1: float
    train_s: float
    detect_s: float
