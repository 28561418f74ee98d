"""Delete what a search found, unless somebody uses it."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lightning_unlearn.exceptions import RunError
from lightning_unlearn.files import LOCK_NAME, lock_folder
from lightning_unlearn.purge.found import Finding, Purge

__all__ = ["delete"]


def delete(found: Purge) -> list[Finding]:
    """Delete what was found; what another process uses stays and is added to what is left.

    Args:
        found: See `find`.

    Returns:
        What was deleted.
    """
    deleted = []
    for finding in found.deletable:
        try:
            with _held(finding.path):
                finding.path.unlink(missing_ok=True)
        except (RunError, OSError) as error:
            found.left.append(Finding(finding.path, finding.size, f"{finding.why}; it could not be deleted: {error}"))
            continue
        deleted.append(finding)
    found.deletable = []
    return deleted


@contextmanager
def _held(path: Path) -> Generator[None]:
    """Hold the folder of the run, or of the bank's entry, that a file lies in."""
    folder = next((p for p in path.parents if (p / LOCK_NAME).is_file()), None)
    with nullcontext() if folder is None else lock_folder(folder):
        yield
