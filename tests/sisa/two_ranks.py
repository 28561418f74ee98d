"""Two ranks train an ensemble whose first slice is empty, one of them two seconds late; each writes its weights.

Called with the folder, the number of the late rank, and 1 where the process group is set up before, else 0.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.random import run_seed
from lightning_unlearn.sisa.plan import assign
from lightning_unlearn.sisa.recipe import SliceRecipe
from tests.sisa.conftest import make_model, make_trainer, without


def run(rank: int, folder: str, late: int, grouped: bool) -> None:
    """Join the group, train, and write the result."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test")
    trainer = make_trainer(devices=2, strategy="ddp", max_epochs=3, default_root_dir=folder)
    digits = Digits(test_size=40, train_size=70)
    # Only shards, slices and seed say where a sample is.
    shard, slice_of = assign(digits.train.hashes, SliceRecipe(3, 2, run_seed(), 2, 16, {}))
    first = {key for key, here in zip(digits.train.keys, ((shard == 0) & (slice_of == 0)).tolist(), strict=True) if here}
    data = UnlearningDataModule(without(digits, first), None, unseen=0, batch_size=16, num_workers=0)
    if grouped:
        dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    if rank == late:
        time.sleep(2)
    model = make_model()
    trainer.fit(model, datamodule=data)
    torch.save(model.state_dict(), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[4])
    arguments = (sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")
    torch.multiprocessing.spawn(run, args=arguments, nprocs=2)
