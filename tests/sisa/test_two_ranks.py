"""Ranks that come late to an ensemble find what the first one planned, not what it has saved meanwhile."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.ddp


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("late", [0, 1])
def test_a_late_rank_trains_what_the_first_one_planned(late, grouped, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_ranks.py")
    paths = [str(script.parents[2]), *(path for path in sys.path if path)]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(late), str(int(grouped)), str(port)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    [record] = (tmp_path / "checkpoints/slices").glob("shard-0-slice-0-*.trained.json")
    assert json.loads(record.read_text())["keys"] == []
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
