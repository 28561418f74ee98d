"""The entry point: from a list of arguments to an exit code."""

import os
import re
import sys
import traceback
from collections.abc import Sequence

from lightning_unlearn import __version__
from lightning_unlearn.cli.arguments import Call, read_call
from lightning_unlearn.cli.commands import overview
from lightning_unlearn.cli.of_worker import plain
from lightning_unlearn.cli.run_folder import RUN_VARIABLE
from lightning_unlearn.exceptions import UnlearnError
from lightning_unlearn.files import REMEDIES

__all__ = ["main"]

BAD_INPUT, UNEXPECTED, INTERRUPTED, UNREAD = 2, 1, 130, 141
# What a run sets for its own processes; a later call in this process must not see it.
_VARIABLES = (RUN_VARIABLE, "PL_GLOBAL_SEED", "PL_SEED_WORKERS")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command line without the program's name; None: that of this process.

    Returns:
        0; 2 for input or a machine that cannot be used; 130 and 143 after Ctrl-C and SIGTERM; 141 where what
        reads the output has stopped before all was said; 1 for anything unexpected.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    if os.getcwd() not in sys.path:
        # So that the user's own classes are found, as with `python -m`.
        sys.path.insert(0, os.getcwd())
    debug = "--debug" in arguments
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        return _run(read_call(arguments))
    except UnlearnError as error:
        return _fail(error, plain(error)[1], BAD_INPUT, debug)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else UNEXPECTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads("\n"):
            return UNREAD
        cause = _outside(error)
        if cause is not None:
            return _fail(error, cause, BAD_INPUT, debug)
        text = f"unexpected {': '.join(plain(error))} (--debug shows where it comes from)"
        return _fail(error, text, UNEXPECTED, debug)
    finally:
        _nobody_reads()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _run(call: Call) -> int:
    if call.version:
        print(__version__)
        return 0
    if call.command is None:
        print(overview())
        return 0
    if call.command == "report":
        from lightning_unlearn.cli.report_command import report_command

        return report_command(call.arguments, call.help is not None)
    if call.command == "purge":
        from lightning_unlearn.cli.purge_command import purge_command

        return purge_command(call.arguments, call.help is not None)
    from lightning_unlearn.cli.terminal import Signals, plain_lines

    with Signals() as signals, plain_lines():
        try:
            if call.command == "export":
                from lightning_unlearn.cli.export_command import export_command

                return export_command(call.arguments, call.help is not None)
            # Importing torch and Lightning takes seconds, so that it happens only where it is needed.
            from lightning_unlearn.cli.lightning_cli import UnlearningCLI

            UnlearningCLI(call)
        except SystemExit as end:
            # Lightning ends an interrupted fit with code 1.
            if signals.received is not None:
                raise SystemExit(128 + signals.received) from None
            raise end
    return 0


def _nobody_reads(more: str = "") -> bool:
    """Whether the pipe behind the output was closed, as by `head`. What can no longer be said goes nowhere, without error."""
    try:
        print(more, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return isinstance(error, BrokenPipeError)
    return False


def _fail(error: BaseException, text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return code


def _outside(error: Exception) -> str | None:
    """What to say where the machine, a setting or the user's own code is to blame, not the program; None elsewhere."""
    # By name: torch and Lightning may not have been imported.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = plain(error)[1]
    if kinds & {"OutOfMemoryError", "MemoryError"}:
        return f"out of memory: {text.partition('.')[0] or type(error).__name__}. Lower --data.batch_size."
    if "MisconfigurationException" in kinds or "conditioned on metric" in str(error):  # the latter: EarlyStopping's monitor
        return str(error)
    if "Expected more than 1 value per channel" in str(error):
        return (
            "A batch of one sample went through a norm that takes mean and variance over the batch (BatchNorm). Needed: two "
            "samples or more in every batch. Forget more at once, raise the batch size, or choose a method that keeps the "
            "network in evaluation mode (gradient_ascent, for instance)."
        )
    if "RuntimeError" in kinds and re.search(r"Connection (closed|reset) by peer", text):  # gloo's words
        return (
            f"{text.rstrip('.')}. Another process of this run has ended: it was killed, or what it said stands above. What is "
            "finished is kept: the same call with --resume and the run's folder goes on; of benchmark, the same call alone."
        )
    if isinstance(error, OSError) and error.errno is not None:
        remedy = REMEDIES.get(error.errno, "check the path, the disk and its permissions")
        return f"{error.filename or 'a file'}: {error.strerror}; {remedy}."
    if isinstance(error, OSError) and text != str(error):
        return f"{text}; check the path, the disk and its permissions."
    from lightning_unlearn.cli.own_code import of_own_code

    return of_own_code(error)
