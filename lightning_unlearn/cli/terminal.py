"""What a person sees: plain lines, one per warning, without the remarks that Lightning makes to everybody."""

import contextlib
import logging
import os
import signal
import sys
import types
import warnings
from collections.abc import Generator

__all__ = ["Signals", "plain_lines"]

# Known remarks that say nothing about the user's run.
_NOISE = (
    ".*isinstance.treespec, LeafSpec.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*does not have many workers.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*You defined a `validation_step` but have no `val_dataloader`.*",
    ".*You passed in a `val_dataloader` but have no `validation_step`.*",  # LogLoss says it in our words
    ".*in eval mode at the start of training.*",
    # Lightning 2.6 calls what jsonargparse 5 will rename; the messages begin with a line break.
    r"\s*By default only one JsonargparseDeprecationWarning.*",
    r"\s*``instantiate_classes`` was deprecated.*",
)
_LOUD = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")


@contextlib.contextmanager
def plain_lines() -> Generator[None, None, None]:
    """Print our messages and all real warnings as single lines on stderr; keep Lightning's remarks away.

    Yields:
        Nothing.
    """
    import lightning.pytorch  # ruff: ignore[unused-import]  # its import sets the levels that are changed below

    ours = logging.getLogger("lightning_unlearn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    loud = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in (ours, *loud)]
    ours.addHandler(handler)
    try:
        # Processes of further devices would say everything again.
        ours.setLevel(logging.INFO if int(os.environ.get("LOCAL_RANK") or 0) == 0 else logging.ERROR)
        for logger in loud:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            warnings.showwarning = _show_warning
            yield
    finally:
        ours.removeHandler(handler)
        for logger, level in zip((ours, *loud), levels, strict=True):
            logger.setLevel(level)


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = " ".join(record.getMessage().split("\n"))
        return text if record.levelno < logging.WARNING else f"warning: {text}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


class Signals:
    """Ctrl-C and SIGTERM as exceptions, with the exit codes that shells expect.

    Attributes:
        received: The last signal's number; None before one came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # Outside the main thread signals belong to somebody else.
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def _receive(self, number: int, _: types.FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
