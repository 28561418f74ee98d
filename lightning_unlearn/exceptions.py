"""The errors that users catch; the command line prints each as one line and ends with exit code 2."""

from collections.abc import Sequence

__all__ = [
    "METHOD_FAILURES",
    "AlreadyForgottenError",
    "ChainError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "NothingKnownError",
    "RunError",
    "UnlearnError",
]


class UnlearnError(Exception):
    """Base of all errors that this package raises on purpose: what was given, what is needed, what to do."""


class DataError(UnlearnError, ValueError):
    """A data set, a forget request or a split that cannot be used."""


class NothingKnownError(DataError):
    """A request that names no sample that the model was trained on.

    Args:
        text: What is wrong.
        keys: Keys of the samples that it names.
        caution: What must be said of the request besides; empty: nothing.
    """

    def __init__(self, text: str, keys: Sequence[str], caution: str = "") -> None:
        super().__init__(f"{text} {caution}".rstrip())
        self.keys = list(keys)
        self.caution = caution


class AlreadyForgottenError(DataError):
    """A request that is repeated: earlier ones have removed what it names. Nothing is left to do."""


class CheckpointError(UnlearnError, ValueError):
    """A checkpoint that is missing, unreadable, unsafe, or does not fit the model."""


class ChainError(UnlearnError, ValueError):
    """A chain of stages that cannot run: a missing artifact, an unusable selection, a strategy that loses weights."""


class ConfigError(UnlearnError, ValueError):
    """A configuration or argument that names something unknown or out of range."""


class RunError(UnlearnError, RuntimeError):
    """A run that had to stop: a locked folder, a non-finite loss, a full disk."""


# What a method may end with on a network or forget set that it does not fit, memory that runs out and a matrix without an
# inverse included. Where methods are compared that is a result: it is listed, and the others go on.
METHOD_FAILURES = (UnlearnError, RuntimeError, ValueError)
