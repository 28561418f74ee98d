"""What still holds forgotten data, or was trained on it: found by what each file's record says. Imports no torch."""

from lightning_unlearn.purge.deletion import delete
from lightning_unlearn.purge.found import Finding, Purge
from lightning_unlearn.purge.search import find

__all__ = ["Finding", "Purge", "delete", "find"]
