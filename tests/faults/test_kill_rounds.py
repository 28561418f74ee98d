"""Interrupted runs of `unlearn` and `fit` load, go on where they stopped, and end as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

ROUNDS = Path(__file__).parent / "kill_rounds.py"


@pytest.mark.parametrize(
    ("signal", "kinds", "rounds"),
    [("SIGKILL", "unlearn fit", 4), ("SIGKILL", "cli-unlearn cli-fit", 2), ("SIGTERM", "unlearn", 2), ("SIGINT", "unlearn", 2)],
)
def test_interrupted_runs_end_bit_identical(signal, kinds, rounds):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KILL_WITH": signal}
    command = [sys.executable, str(ROUNDS), str(rounds), "0", *kinds.split()]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-5000:]
    assert "all identical" in run.stdout
    assert " -> " in run.stdout
