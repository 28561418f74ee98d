"""`kill -9` at random moments of runs: `python kill_rounds.py ROUNDS [SEED] [KIND ...]`.

The kinds are `unlearn` and `fit` (Python), `cli-unlearn` and `cli-fit` (command line). Every run is a process of its own;
those in Python are forked from this one, so that a round does not wait for imports. In half of the rounds TMPDIR lies on
another file system; every third kill comes at the first sight of a checkpoint that is just being written.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import runs
import torch
import yaml

from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO, read_weights, save_weights

SHARED_MEMORY = Path("/dev/shm")
FINISHED = {
    "unlearn": "unlearned.ckpt",
    "fit": "final.ckpt",
    "cli-unlearn": "unlearned.ckpt",
    "cli-fit": "checkpoints/last.ckpt",
}
STAGES = ["FineTune", "MaskLearning", "NormDecay", "FineTune"]
TIMEOUT = 120


def begin(kind, folder, temporary):
    """Start or go on with a run; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        quiet = os.open(folder.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        if kind.startswith("cli-"):
            os.chdir(Path(__file__).parent)
            os.execv(sys.executable, [sys.executable, "-m", "lightning_unlearn", *command_line(kind, folder)])
        warnings.simplefilter("ignore")
        (runs.unlearn if kind == "unlearn" else runs.fit)(folder)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def command_line(kind, folder):
    """Arguments that begin a run in an empty folder, or go on with it."""
    command = kind.removeprefix("cli-")
    if (folder / "run.json").exists():
        return [command, "--resume", str(folder)]
    # Killed before it had written down what it is.
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    weights, config = folder.parent / "start.ckpt", folder.parent / "config.yaml"
    save_weights(weights, runs.make_model().state_dict(), {})
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3}}
    mask = {"max_epochs": 3, "batch_size": 4, "penalty": 1e-4, "optimizer": adam}
    settings = {
        "trainer": {"accelerator": "cpu", "devices": 1},
        "model": {"class_path": "Classifier", "init_args": {"network": "runs.Network", "optimizer": sgd}},
        "data": {
            "dataset": {"class_path": "Digits", "init_args": {"test_size": 100, "train_size": 300}},
            "forget": {"class_path": "RandomFraction", "init_args": {"fraction": 0.1}},
            "unseen": 40,
            "batch_size": 32,
        },
    }
    if command == "fit":
        settings["trainer"]["max_epochs"] = 30
    else:
        recorder = {"class_path": "runs.Recorder", "init_args": {"path": str(folder / runs.STAGES_RUN)}}
        settings["trainer"]["callbacks"] = [recorder]
        settings |= {"checkpoint": str(weights), "relearn_epochs": 0}
        settings["stages"] = [
            {"class_path": "FineTune", "init_args": {"max_epochs": 10, "schedule": "one_cycle", "optimizer": sgd}},
            {"class_path": "MaskLearning", "init_args": mask},
            {"class_path": "NormDecay"},
            {"class_path": "FineTune", "init_args": {"max_epochs": 20, "schedule": "cosine", "optimizer": sgd}},
        ]
    config.write_text(yaml.safe_dump(settings))
    return [command, "-c", str(config), "--output", str(folder)]


def ended(child):
    """The status of a run, or None while it goes on."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(child, until):
    """Wait until the run ends, or `until` is true; its status, or None."""
    limit = time.monotonic() + TIMEOUT
    while (status := ended(child)) is None and not until():
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("the run did not end")
        time.sleep(0.0005)
    return status


def is_writing(folder):
    """Whether a checkpoint is just being written."""
    return any(path.name.endswith(".tmp") and ".ckpt." in path.name for path in folder.glob("**/.*"))


def finished_stages(folder):
    return len(list(folder.glob("stage*.ckpt")))


def progress(kind, folder):
    """How far an interrupted run had come."""
    if kind.endswith("unlearn"):
        return f"{finished_stages(folder)} stages"
    newest = folder / "checkpoints" / "last.ckpt"
    return f"step {AtomicCheckpointIO().load_checkpoint(newest)['global_step']}" if newest.exists() else "nothing"


def stages_run(folder):
    """The stages that the last run of a folder began."""
    path = folder / runs.STAGES_RUN
    return path.read_text().split() if path.exists() else []


def is_finished(kind, folder):
    """Whether nothing is left to do; that of a `fit` of the command line only the command knows."""
    return kind != "cli-fit" and (folder / FINISHED[kind]).exists()


def loads(folder):
    """Every checkpoint that is there loads, with tensors and plain values only."""
    for path in folder.rglob("*.ckpt"):
        if not path.name.startswith("."):
            AtomicCheckpointIO().load_checkpoint(path)
            assert torch.load(path, weights_only=True)["state_dict"]


def same(kind, one, two):
    """Whether two finished runs are bit-identical."""
    a, b = (read_weights(folder / FINISHED[kind])[0] for folder in (one, two))
    equal = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    return equal and (kind.endswith("fit") or runs.figures(one) == runs.figures(two))


def wait_for_a_moment(kind, folder, child, seconds, draw):
    """Let a run go on until a random moment, or its end: its status, or None."""
    left = STAGES[finished_stages(folder) :]
    if kind.endswith("unlearn") and left and draw.random() < 0.6:
        # Within a stage: most of a short run's time passes before and after the chain.
        begun, seconds = draw.randint(1, len(left)), 0.3
        status = wait(child, lambda: len(stages_run(folder)) >= begun)
        if status is not None:
            return status
    limit = time.monotonic() + draw.uniform(0, seconds)
    status = wait(child, lambda: time.monotonic() > limit)
    if status is None and draw.random() < 1 / 3:
        status = wait(child, lambda: is_writing(folder))
    return status


def one_round(kind, folder, undisturbed, seconds, draw, temporary, kill=signal.SIGKILL):
    """Interrupt a run once or twice, then let it end; what happened, in a line."""
    happened = []
    for _ in range(draw.randint(1, 2)):
        left = STAGES[finished_stages(folder) :]
        (folder / runs.STAGES_RUN).unlink(missing_ok=True)
        child, start = begin(kind, folder, temporary), time.monotonic()
        status = wait_for_a_moment(kind, folder, child, seconds, draw)
        if status is None:
            os.kill(child, kill)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            # It may have ended between the look and the signal.
            assert (status == -kill if kill == signal.SIGKILL else status != 0) or is_finished(kind, folder)
            happened.append(f"{time.monotonic() - start:.2f} s -> {progress(kind, folder)}")
        loads(folder)
        assert stages_run(folder) == left[: len(stages_run(folder))]
        if is_finished(kind, folder):
            break
    else:
        left = STAGES[finished_stages(folder) :]
        (folder / runs.STAGES_RUN).unlink(missing_ok=True)
        status = wait(begin(kind, folder, temporary), lambda: False)
        assert status == 0, (folder.parent / "output.txt").read_text()[-3000:]
        assert kind.endswith("fit") or stages_run(folder) == left
    assert same(kind, folder, undisturbed), f"{folder} ended differently"
    return "; ".join(happened) or "ended before it was killed"


def main(rounds, seed=0, kinds=("unlearn", "fit"), kill=signal.SIGKILL):
    """Run the rounds; raises where one fails."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    kills = 0
    with tempfile.TemporaryDirectory() as scratch:
        # Both are of this machine's own file systems; where there is only one, TMPDIR is the same.
        places = [Path(scratch), SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(scratch)]
        for kind in kinds:
            undisturbed = Path(scratch) / f"{kind}-undisturbed" / "run"
            undisturbed.mkdir(parents=True)
            start = time.monotonic()
            assert wait(begin(kind, undisturbed, scratch), lambda: False) == 0, (undisturbed.parent / "output.txt").read_text()
            seconds = time.monotonic() - start
            print(f"{kind}: undisturbed {seconds:.1f} s", flush=True)
            for number in range(rounds):
                folder = Path(scratch) / f"{kind}-{number}" / "run"
                folder.mkdir(parents=True)
                line = one_round(kind, folder, undisturbed, seconds, draw, places[number % 2], kill)
                kills += line.count("->")
                print(f"{kind} {number}: {line}: identical", flush=True)
    print(f"{rounds} rounds of {', '.join(kinds)}, {kills} kills: all identical")


if __name__ == "__main__":
    name = os.environ.get("KILL_WITH", "SIGKILL")
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 20,
        int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        tuple(sys.argv[3:]) or ("unlearn", "fit"),
        signal.Signals[name],
    )
