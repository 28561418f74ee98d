"""Two processes that see shares of the same samples; prints what each of them computes."""

import json
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from lightning_unlearn.metrics.accuracy import Accuracy, MarginMean, UnlearningAccuracy
from lightning_unlearn.metrics.divergence import JensenShannonToReference
from lightning_unlearn.metrics.mia_efficacy import MiaEfficacy
from lightning_unlearn.outputs import Outputs, PartOutputs


def values(model: Outputs, shares: dict[str, torch.Tensor]) -> dict[str, float]:
    """All logged metrics over the rows that `shares` gives of each part."""
    forget = model.forget
    reference = PartOutputs(forget.logits.flip(1), forget.targets, forget.index)
    metrics = {
        "accuracy": Accuracy(),
        "ua": UnlearningAccuracy(),
        "margin": MarginMean(),
        "js": JensenShannonToReference(reference),
    }
    for rows in shares["forget"].split(4):
        for metric in metrics.values():
            metric.update(forget.logits[rows], forget.targets[rows], forget.index[rows])
    mia = MiaEfficacy(seed=3)
    for name, rows in shares.items():
        part = model.parts()[name]
        for some in rows.split(16):
            mia.update(part.logits[some], part.targets[some], part.index[some], name)
    return {name: metric.compute().item() for name, metric in {**metrics, "mia": mia}.items()}


def shares_of(model: Outputs, rank: int, kind: str) -> dict[str, torch.Tensor]:
    """Rows of this rank: every second, padded to equal numbers as samplers do, or all of them on rank 0."""
    found = {}
    for name in ("forget", "retain", "test"):
        n = len(model.parts()[name])
        rows = torch.arange(n)
        if kind == "padded":
            found[name] = torch.cat([rows, rows[: n % 2]])[rank::2]
        else:
            found[name] = rows if rank == 0 else rows[:0]
    return found


def run(rank: int, folder: str) -> None:
    """Join the group, compute, and write the result."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = Outputs.load(Path(folder) / "outputs.pt")
    found = {kind: values(model, shares_of(model, rank, kind)) for kind in ("padded", "one rank empty")}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        Outputs.load(sys.argv[1]).save(Path(scratch) / "outputs.pt")
        torch.multiprocessing.spawn(run, args=(scratch,), nprocs=2)
        print(json.dumps([json.loads((Path(scratch) / f"{rank}.json").read_text()) for rank in range(2)]))
