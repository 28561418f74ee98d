"""What a report says of the requests that a model went through."""

from dataclasses import dataclass

from lightning_unlearn.report.labels import count

__all__ = ["PastRequest", "amount"]


@dataclass
class PastRequest:
    """One line of the run's ledger, without the keys of samples.

    Attributes:
        number: From 1.
        time: When its result was safe, UTC, ISO 8601.
        rule: The forget rule in words.
        count: Samples that it removed.
        method: Name of the method.
        settings: SHA-256 of the method's settings.
        before: SHA-256 of the checkpoint that it started from; empty where there was no file.
        after: SHA-256 of the unlearned checkpoint.
        hash: Hash of the ledger's line.
        classes: How many of them are classes that were forgotten as a whole without reading data.
        withdrawn: How many further samples it lists that the model was never trained on: in no part since.
    """

    number: int
    time: str
    rule: str
    count: int
    method: str
    settings: str
    before: str
    after: str
    hash: str
    classes: int = 0
    withdrawn: int = 0

    @property
    def amount(self) -> str:
        """What it removed, in words."""
        return amount(self.count, self.classes, self.withdrawn)


def amount(keys: int, classes: int, withdrawn: int = 0) -> str:
    """Say how much was forgotten.

    Args:
        keys: Keys of samples and of classes together.
        classes: How many of them stand for a whole class.
        withdrawn: How many samples were withdrawn.

    Returns:
        For instance "5 samples", "1 class", "5 samples and 1 class" or "4 samples and 2 withdrawn, never trained on".
    """
    samples = keys - classes
    said = [f"{count(samples)} {'sample' if samples == 1 else 'samples'}"] if samples or not classes else []
    said += [f"{classes} {'class' if classes == 1 else 'classes'}"] if classes else []
    return " and ".join([*said, *([f"{count(withdrawn)} withdrawn, never trained on"] if withdrawn else [])])
