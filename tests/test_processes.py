import logging
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from lightning_unlearn.exceptions import ChainError, RunError
from lightning_unlearn.processes import Task, available_processes, run_tasks


def tasks(folder, count=4, error=ChainError, named=True, **failing):
    def writes(i):
        def run():
            if i in failing.values():
                raise error(f"task {i} broke" if named else "")
            (folder / f"{i}").write_text(str(os.getpid()))

        return run

    return [Task(f"t{i}", 1.0, writes(i), may_fail="may" in failing) for i in range(count)]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_runs_once_and_in_its_process(tmp_path, processes):
    assert run_tasks(tasks(tmp_path), processes) == {}
    pids = {int((tmp_path / f"{i}").read_text()) for i in range(4)}
    assert (os.getpid() in pids) == (processes == 1)
    assert len(pids) <= processes


@pytest.mark.parametrize("error", [ChainError, torch.OutOfMemoryError, torch.linalg.LinAlgError, np.linalg.LinAlgError])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_is_a_result_or_ends_the_run(tmp_path, processes, error):
    assert run_tasks(tasks(tmp_path, error=error, may=1), processes) == {"t1": "task 1 broke"}
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(error, match="task 1 broke"):
        run_tasks(tasks(tmp_path, error=error, must=1), processes)


def test_a_failure_without_words_is_one(tmp_path):
    assert run_tasks(tasks(tmp_path, error=RuntimeError, named=False, may=1), 1) == {"t1": "RuntimeError"}


def test_a_worker_that_dies_is_an_error_with_a_remedy():
    dies = [Task(f"t{i}", 1.0, lambda: os._exit(9)) for i in range(2)]
    with pytest.raises(RunError, match="Finished cells are kept"):
        run_tasks(dies, 2)


def test_whoever_stops_a_run_does_not_wait_for_its_workers(tmp_path):
    def sleeps():
        (tmp_path / str(os.getpid())).touch()
        time.sleep(120)

    def stop():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=stop, daemon=True).start()
    begin = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tasks([Task(f"t{i}", 1.0, sleeps) for i in range(3)], 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - begin < 60
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_remaining_time_is_said(caplog):
    with caplog.at_level(logging.INFO):
        run_tasks([Task("only", 3.0, lambda: None)], 1)
    assert "only done: 100 %, about 0.00 s left" in caplog.text


def test_there_is_a_process():
    assert 1 <= available_processes() <= (os.cpu_count() or 1)
