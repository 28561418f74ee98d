"""`kill -9` at any moment leaves a checkpoint that loads, also where TMPDIR is on another file system."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO, read_weights

SAVE_FOR_EVER = """
import sys
import torch
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

plugin, step = AtomicCheckpointIO(), 0
while True:
    step += 1
    # Every tensor says which save it belongs to: a mixture of two saves would show.
    state = {f"w{i}": torch.full((100_000,), float(step)) for i in range(20)}
    plugin.save_checkpoint({"state_dict": state, "global_step": step}, sys.argv[1])
    if step == 1:
        print("saved", flush=True)
"""
SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.faults
@pytest.mark.parametrize("round_", range(4))
def test_the_file_always_loads(tmp_path, round_):
    path = tmp_path / "run" / "last.ckpt"
    environment = dict(os.environ)
    if SHARED_MEMORY.is_dir():
        assert SHARED_MEMORY.stat().st_dev != tmp_path.stat().st_dev
        environment["TMPDIR"] = str(SHARED_MEMORY)
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "saved\n"
        time.sleep(random.Random(round_).uniform(0.02, 0.4))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    step = AtomicCheckpointIO().load_checkpoint(path)["global_step"]
    state, _ = read_weights(path)
    assert len(state) == 20
    assert all((tensor == step).all() for tensor in state.values())
    # The next save goes through, whatever the killed one left.
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "global_step": step + 1}, path)
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == step + 1
