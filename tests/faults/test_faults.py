"""What can go wrong around a run ends it with a clear error, and leaves what was there usable."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import runs
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.exceptions import CheckpointError, ConfigError, RunError
from lightning_unlearn.files import lock_folder
from lightning_unlearn.stages import FineTune, GaussianNoise, UnlearningStage
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO, read_weights

pytestmark = pytest.mark.faults


class Broken(UnlearningStage):
    """Its loss is NaN at the third step, as long as the switch is on."""

    view = "retain"
    train_mode = False
    on = True

    def objective(self, batch):
        loss = torch.nn.functional.cross_entropy(self.classifier(batch.input), batch.target)
        return loss * float("nan") if Broken.on and self.trainer.global_step == 2 else loss


class RaisingLogger(CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise OSError("the tracking server is away")


class FullDisk(Callback):
    """No file may grow beyond a size from the end of a stage on."""

    def __init__(self, stage):
        self._stage = stage  # private: with another callback the folder would be that of another run

    def on_fit_end(self, trainer, pl_module):
        if type(pl_module).__name__ == self._stage:
            limit_files(4096)


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextlib.contextmanager
def files_unlimited_afterwards():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stages():
    return [GaussianNoise(0.1), FineTune(max_epochs=1, optimizer=runs.sgd)]


def unlearn(folder, chain=None, model=None, **kwargs):
    model = model or runs.make_model()
    trainer = runs.make_trainer(**kwargs)
    return trainer.unlearn(model, runs.make_data(), chain or stages(), output=str(folder), relearn_epochs=0)


def weights(folder):
    return read_weights(folder / "unlearned.ckpt")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def leftovers(folder):
    return [path.name for path in folder.rglob("*.tmp")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    unlearn(folder)
    return weights(folder)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_finished_stage(tmp_path):
    folder, model = tmp_path / "run", runs.make_model()
    Broken.on = True
    with pytest.raises(RunError, match="a loss is not finite at batch 2 of epoch 0"):
        unlearn(folder, [GaussianNoise(0.1), Broken()], model)
    saved = AtomicCheckpointIO().load_checkpoint(folder / "stage0.ckpt")["state_dict"]
    # The stage's first step had been taken: the weights are those that it began with.
    assert same(saved, model.state_dict())
    assert all(p.requires_grad and p.isfinite().all() for p in model.parameters())
    assert not (folder / "unlearned.ckpt").exists()
    Broken.on = False
    unlearn(folder, [GaussianNoise(0.1), Broken()])
    unlearn(tmp_path / "undisturbed", [GaussianNoise(0.1), Broken()])
    assert same(weights(folder), weights(tmp_path / "undisturbed"))


def test_a_logger_that_raises_ends_the_run_and_nothing_else(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with pytest.raises(OSError, match="the tracking server is away"):
        unlearn(folder, logger=RaisingLogger(tmp_path / "log"), log_every_n_steps=1)
    assert (folder / "stage0.ckpt").exists()
    assert not (folder / "stage1.ckpt").exists()
    unlearn(folder)
    assert same(weights(folder), undisturbed)


@pytest.mark.parametrize("stage", ["GaussianNoise", "FineTune"])
def test_a_full_disk_while_a_stage_is_saved(tmp_path, undisturbed, stage):
    folder = tmp_path / "run"
    with (
        files_unlimited_afterwards(),
        pytest.raises(RunError, match=r"Cannot write .*stage\d.ckpt.* unchanged; raise the"),
    ):
        unlearn(folder, callbacks=[FullDisk(stage)])
    assert not leftovers(folder)
    finished = sorted(path.name for path in folder.glob("*.ckpt"))
    assert finished == ([] if stage == "GaussianNoise" else ["stage0.ckpt"])
    for name in finished:
        AtomicCheckpointIO().load_checkpoint(folder / name)
    unlearn(folder, callbacks=[FullDisk(None)])
    assert same(weights(folder), undisturbed)


def test_a_full_disk_while_the_report_is_saved(tmp_path, undisturbed, monkeypatch):
    folder = tmp_path / "run"
    levels = Panel.levels

    def fill(panel):
        limit_files(4096)
        return levels(panel)

    with files_unlimited_afterwards(), monkeypatch.context() as patch:
        patch.setattr(Panel, "levels", fill)
        with pytest.raises(RunError, match=r"Cannot write .* unchanged; raise the file size"):
            unlearn(folder)
    assert not leftovers(folder)
    assert not (folder / "unlearned.ckpt").exists()
    assert (folder / "stage1.ckpt").exists()
    report = unlearn(folder)
    assert same(weights(folder), undisturbed)
    assert [record.name for record in report.rows[-1].stages] == ["GaussianNoise", "FineTune"]


def test_a_read_only_folder():
    # Root may write everywhere, and other users may not enter pytest's folders.
    place = Path(tempfile.mkdtemp())
    try:
        (place / "closed").mkdir(mode=0o555)
        user = 65534 if os.geteuid() == 0 else os.geteuid()
        place.chmod(0o755)
        before = os.geteuid()
        os.seteuid(user)
        try:
            for folder in (place / "closed", place / "closed" / "run"):
                with pytest.raises(RunError, match=r"Cannot use the folder .*; make the folder writable"):
                    unlearn(folder)
        finally:
            os.seteuid(before)
        assert not list((place / "closed").iterdir())
    finally:
        shutil.rmtree(place)


def test_a_folder_that_another_process_holds(tmp_path, undisturbed):
    folder = tmp_path / "run"
    hold = "import sys, time; from lightning_unlearn.files import lock_folder\n"
    hold += "with lock_folder(sys.argv[1]): print('held', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RunError, match=f"is in use by process {other.pid}"):
                unlearn(folder)
            assert [path.name for path in folder.iterdir()] == [".lock"]
        finally:
            other.kill()
    unlearn(folder)
    assert same(weights(folder), undisturbed)
    with lock_folder(folder):
        pass


def test_a_finished_run_is_not_written_over(tmp_path):
    folder = tmp_path / "run"
    unlearn(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not [name for name in before if name.startswith("stage")]
    with pytest.raises(ConfigError, match="holds a finished run"):
        unlearn(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def interrupted(folder):
    Broken.on = True
    with pytest.raises(RunError):
        unlearn(folder, [GaussianNoise(0.1), Broken()])


@pytest.mark.parametrize("what", ["stages", "weights", "samples", "batches", "seeds"])
def test_a_run_goes_on_only_as_what_it_was(tmp_path, what, monkeypatch):
    folder, model, data = tmp_path / "run", runs.make_model(), runs.make_data()
    interrupted(folder)
    chain = [GaussianNoise(0.1), Broken()]
    match what:
        case "stages":
            chain = [GaussianNoise(0.2), Broken()]
        case "weights":
            with torch.no_grad():
                next(model.parameters())[0] += 1e-3
        case "samples":
            data.draw(forget_seed=1)
        case "batches":
            data = type(data)(data.dataset, data.forget_rule, unseen=40, batch_size=16, num_workers=0, seed=0)
        case "seeds":
            monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    with pytest.raises(ConfigError, match=f"the beginning of another run: its {what} differ"):
        runs.make_trainer().unlearn(model, data, chain, output=str(folder), relearn_epochs=0)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_stage_is_named(tmp_path, damage):
    folder = tmp_path / "run"
    interrupted(folder)
    content = bytearray((folder / "stage0.ckpt").read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    (folder / "stage0.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"stage0\.ckpt cannot be read: it is cut short or damaged"):
        unlearn(folder, [GaussianNoise(0.1), Broken()])


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.ddp
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other(tmp_path, killed):
    folder = tmp_path / "run"
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PL_GLOBAL_SEED")}
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, runs.__file__, "unlearn", str(folder), "2", "100000"]
    with (tmp_path / "output").open("w") as output:
        main = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 200
    while not (folder / runs.STAGES_RUN).exists():
        assert main.poll() is None, (tmp_path / "output").read_text()[-3000:]
        assert time.monotonic() < limit
        time.sleep(0.1)
    time.sleep(1)
    ranks = [int((folder / f"pid-{rank}").read_text()) for rank in range(2)]
    try:
        assert all(alive(pid) for pid in ranks)
        os.kill(ranks[killed], signal.SIGKILL)
        assert main.wait(timeout=60) != 0
        limit = time.monotonic() + 60
        while any(alive(pid) for pid in ranks):
            assert time.monotonic() < limit, "the other rank hangs"
            time.sleep(0.1)
    finally:
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not (folder / "unlearned.ckpt").exists()
