"""What a report says of the requests that a model went through."""

from dataclasses import dataclass

__all__ = ["PastRequest"]


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
