"""Independent tasks over the cores of this machine, with the remaining time."""

import contextlib
import logging
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event

import torch

from lightning_unlearn.exceptions import METHOD_FAILURES, RunError
from lightning_unlearn.report.labels import seconds

__all__ = ["Task", "available_processes", "one_thread", "run_tasks"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A piece of work that leaves its result in a file.

    Attributes:
        name: For the log.
        work: Expected work, in any unit that all tasks share.
        run: Does it.
        may_fail: Whether one of `METHOD_FAILURES` in it is a result, and the others go on.
    """

    name: str
    work: float
    run: Callable[[], None]
    may_fail: bool = False


# What forked workers find: tasks hold Trainers and models, which need not be pickled then.
_tasks: Sequence[Task] = ()


def available_processes() -> int:
    """Processes that can work at once: the cores that this process may use, or 1 where it cannot fork.

    Returns:
        At least 1.
    """
    if "fork" not in multiprocessing.get_all_start_methods() or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # missing in torch's annotations
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(tasks: Sequence[Task], processes: int, quiet: bool = False) -> dict[str, str]:
    """Run all tasks, and say after each how much time is left.

    Args:
        tasks: In the order in which they begin.
        processes: How many run at once; 1: in this process.
        quiet: Whether nothing is logged.

    Returns:
        Messages of tasks that failed and may, by name.

    Raises:
        RunError: A worker died.
    """
    progress = _Progress(sum(task.work for task in tasks), quiet)
    failed: dict[str, str] = {}

    def done(task: Task, message: str) -> None:
        if message:
            failed[task.name] = message
        progress.add(task)

    if processes == 1 or len(tasks) < 2:
        for task in tasks:
            done(task, _run(task))
        return failed
    global _tasks
    _tasks = tasks
    try:
        with warnings.catch_warnings():
            # Workers run with one thread, so no lock of another thread's can be held in them for ever.
            warnings.filterwarnings("ignore", ".*use of fork\\(\\) may lead to deadlocks.*")
            context = multiprocessing.get_context("fork")
            stop = context.Event()
            arguments = (os.getpid(), stop)
            with ProcessPoolExecutor(
                min(processes, len(tasks)), context, initializer=_begin_worker, initargs=arguments
            ) as pool:
                running: dict[Future[str], Task] = {pool.submit(_run_numbered, i): task for i, task in enumerate(tasks)}
                try:
                    while running:
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            done(running.pop(future), future.result())
                except BaseException as error:
                    # After a failure the others may finish what they have begun; whoever stops a run will not wait for it.
                    if not isinstance(error, Exception):
                        stop.set()
                    pool.shutdown(cancel_futures=True)
                    raise
    except BrokenProcessPool as error:
        raise RunError(
            "A worker process died, perhaps for want of memory. Finished cells are kept: start again, with fewer --processes."
        ) from error
    finally:
        _tasks = ()
    return failed


@contextlib.contextmanager
def one_thread() -> Generator[None]:
    """Let torch use one thread: on many small tensors more threads only wait for each other.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin_worker(parent: int, stop: Event) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()


def _end_with(parent: int, stop: Event) -> None:
    """End this worker when the run that forked it is stopped, or killed: it would hold the run folder's lock for ever."""
    while os.getppid() == parent and not stop.wait(1):
        pass
    os._exit(1)


def _run_numbered(i: int) -> str:
    return _run(_tasks[i])


def _run(task: Task) -> str:
    try:
        task.run()
    except METHOD_FAILURES as error:
        if not task.may_fail:
            raise
        return str(error) or type(error).__name__
    return ""


class _Progress:
    """Says how far the work is, at most once a second."""

    def __init__(self, total: float, quiet: bool) -> None:
        self.total, self.quiet = total, quiet
        self.begin = self.said = time.perf_counter()
        self.finished = 0.0

    def add(self, task: Task) -> None:
        self.finished += task.work
        now = time.perf_counter()
        if self.quiet or (now - self.said < 1 and self.finished < self.total):
            return
        self.said = now
        left = (now - self.begin) * (self.total - self.finished) / max(self.finished, 1e-9)
        log.info("%s done: %.0f %%, about %s left", task.name, 100 * self.finished / max(self.total, 1e-9), seconds(left))
