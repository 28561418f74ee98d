"""Files that are whole or absent, and folders that one process uses at a time."""

import errno
import hashlib
import os
import secrets
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lightning_unlearn.exceptions import RunError, UnlearnError

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["hash_of_file", "lock_folder", "write_atomic", "write_text_atomic"]

LOCK_NAME = ".lock"
# Seconds before an unlocked temporary file counts as left by a killed process: a younger one may be about
# to be locked by its writer.
STALE_AFTER = 60.0
REMEDIES = {
    errno.ENOSPC: "free space on that disk, or choose another folder",
    errno.EDQUOT: "free space in your quota, or choose another folder",
    errno.EFBIG: "raise the file size limit (`ulimit -f`), or choose another folder",
    errno.EACCES: "make the folder writable, or choose another one",
    errno.EPERM: "make the folder writable, or choose another one",
    errno.EROFS: "choose a folder on a disk that is not mounted read-only",
    errno.EISDIR: "give the path of a file, not of a folder",
    errno.ENOTDIR: "give a path whose parents are all folders",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_atomic(path: str | Path, writer: Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every moment, also after `kill -9`, the old or the new one is there whole.

    The temporary file lies beside the target, never in `TMPDIR`: a rename over file systems is a copy, and
    can be torn. Missing parent folders are made. A link is followed; an existing file keeps its permissions.

    Args:
        path: The file.
        writer: Writes the content to the open binary file that it is given.

    Raises:
        RunError: The file cannot be written (disk full, no permission); the old one is untouched.
    """
    target = Path(os.path.realpath(path))
    prefix = f".{target.name[:100]}."
    temporary = target.parent / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target.parent, prefix)
        # 0o666 is narrowed by the umask, as for any file that a program makes.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666)
        try:
            with open(descriptor, "wb") as file:
                _try_lock(descriptor)
                if target.is_file():
                    os.chmod(temporary, target.stat().st_mode & 0o777)
                writer(file)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        remedy = REMEDIES.get(cause.errno or 0, "check the disk and its permissions")
        raise RunError(f"Cannot write {path}: {cause.strerror or cause}. What was there is unchanged; {remedy}.") from error


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, with the guarantees of `write_atomic`.

    Args:
        path: The file.
        text: Its whole content; line ends are written as they are.
    """
    data = text.encode("utf-8")
    write_atomic(path, lambda file: file.write(data))


@contextmanager
def lock_folder(path: str | Path, wait: bool = False) -> Generator[None, None, None]:
    """Hold a folder for this process while the context is open; it is released also when the process dies.

    The folder is made where it is missing; the lock is `flock` on its file `.lock`, which stays behind empty.
    Where the system or the file system has no such locks, a warning says so and nothing is held. Of several
    ranks, only the first may lock.

    Args:
        path: The folder.
        wait: Whether to wait until another process lets go, in place of an error.

    Yields:
        Nothing.

    Raises:
        RunError: Another process (or this one, a second time) holds the folder, or it cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check the disk and its permissions")
        raise RunError(f"Cannot use the folder {path}: {error.strerror}; {remedy}.") from error
    try:
        while (held := _try_lock(descriptor)) is False and wait:
            time.sleep(0.1)
        if held is False:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise RunError(f"{path} is in use by process {owner}. Wait until it ends, or choose another folder.")
        if held is None:
            warnings.warn(
                f"{path} cannot be locked on this system; do not let two processes write to it at once.",
                stacklevel=3,
            )
        else:
            os.ftruncate(descriptor, 0)
            # A full disk must not stop the lock: the number only makes the other process's message better.
            with suppress(OSError):
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            if held:
                os.ftruncate(descriptor, 0)
                # Explicitly, not by closing: a worker forked meanwhile shares the lock and would keep it.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool | None:
    """Lock an open file without waiting: True held, False another holds it, None the system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_stale(folder: Path, prefix: str) -> None:
    """Remove temporary files of this target whose writer was killed: old, and locked by nobody."""
    for leftover in folder.iterdir():
        if not (leftover.name.startswith(prefix) and leftover.name.endswith(".tmp")):
            continue
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime < STALE_AFTER:
                continue
            descriptor = os.open(leftover, os.O_RDWR)
            try:
                if _try_lock(descriptor):
                    leftover.unlink()
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot sync a folder keep the file whole all the same."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's error behind an exception: torch wraps that of the file it writes to in a RuntimeError."""
    if not isinstance(error, OSError | RuntimeError) or isinstance(error, UnlearnError):
        return None
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def hash_of_file(path: Path) -> str:
    """A hash of a file's content.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
