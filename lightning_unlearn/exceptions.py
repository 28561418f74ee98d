"""The errors that users catch; the command line prints each as one line and ends with exit code 2."""

__all__ = ["ChainError", "CheckpointError", "ConfigError", "DataError", "RunError", "UnlearnError"]


class UnlearnError(Exception):
    """Base of all errors that this package raises on purpose: what was given, what is needed, what to do."""


class DataError(UnlearnError, ValueError):
    """A data set, a forget request or a split that cannot be used."""


class CheckpointError(UnlearnError, ValueError):
    """A checkpoint that is missing, unreadable, unsafe, or does not fit the model."""


class ChainError(UnlearnError, ValueError):
    """A chain of stages that cannot run: a missing artifact, an unusable selection, a strategy that loses weights."""


class ConfigError(UnlearnError, ValueError):
    """A configuration or argument that names something unknown or out of range."""


class RunError(UnlearnError, RuntimeError):
    """A run that had to stop: a locked folder, a non-finite loss, a full disk."""
