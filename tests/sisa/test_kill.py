"""`kill -9` in the middle of a request: it goes on, ends the same, and leaves nothing behind that saw a deleted sample."""

import os
import shutil
import signal
import traceback
from dataclasses import replace

import pytest

from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.requests.record import RequestRecord
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.sisa.store import SliceStore, settle_slices, successor_of
from lightning_unlearn.stages import RetrainShards
from tests.sisa.conftest import assert_equal, checkpoints, delete, fit, make_model, make_trainer

pytestmark = pytest.mark.faults


def killing(owner, method, after):
    """A method, ending the process after its n-th call; 0: before the first one."""
    real, calls = getattr(owner, method), []

    def run(self, *args, **kwargs):
        if after == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def unlearn(folder, data):
    start = str(folder / "a/checkpoints/last.ckpt")
    return make_trainer().unlearn(
        make_model(), data, [RetrainShards()], checkpoint=start, output=str(folder / "b"), relearn_epochs=0
    )


def in_a_child(work):
    """Run in a forked process; its signal."""
    child = os.fork()
    if child:
        return os.WTERMSIG(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def complete(folder):
    """Whether all slices are there."""
    return len(checkpoints(folder / "slices")) == 6


@pytest.fixture(scope="module")
def keys(make_data):
    """A request that needs several slices and spares some."""
    data = make_data()
    return [data.samples.keys[i] for i in data.part("retain")[1][2:5].tolist()]


@pytest.fixture(scope="module")
def fresh(keys, make_data, tmp_path_factory):
    """What training without these samples gives."""
    return fit(tmp_path_factory.mktemp("fresh"), make_data(keys, view="retain"))


@pytest.mark.parametrize(
    ("method", "after"),
    [("begin", 1), ("take", 1), ("save", 2), ("keep_only", 1), ("finish", 0), ("keep_only", 2), ("finish", 1)],
)
def test_a_killed_request_goes_on(method, after, copy, keys, fresh, make_data, tmp_path):
    old = checkpoints(tmp_path / "a")

    def killed():
        owner = RequestRecord if after == 0 else SliceStore
        setattr(owner, method, killing(owner, method, after))
        unlearn(tmp_path, make_data(keys))

    assert in_a_child(killed) == signal.SIGKILL
    finished = (tmp_path / "b/unlearned.ckpt").is_file()
    # The second `keep_only` is that of the folder from before.
    assert finished == ((method, after) in (("keep_only", 2), ("finish", 1)))
    if not finished:
        assert checkpoints(tmp_path / "a") == old
        assert "from slice" in " ".join(unlearn(tmp_path, make_data(keys)).rows[-1].notes)
    else:
        settle_slices(tmp_path / "b")
    assert checkpoints(tmp_path / "a") == set()
    assert [path.name for path in (tmp_path / "a/checkpoints/slices").iterdir()] == ["slices.json"]
    assert complete(tmp_path / "b")
    assert_equal(Sisa.load(tmp_path / "b/unlearned.ckpt"), fresh)


def test_a_manifest_from_elsewhere_has_nothing_deleted(copy, tmp_path):
    other = SliceStore(tmp_path / "b/slices")
    mine = SliceStore(tmp_path / "a/checkpoints/slices")
    before = checkpoints(tmp_path)
    for name in ("last.ckpt", "../last.ckpt"):
        other.write(replace(mine.read(), previous="../../a/checkpoints/slices", checkpoint=name))
        with pytest.raises(CheckpointError, match="names another successor, or none, and nothing was deleted"):
            settle_slices(tmp_path / "b")
        assert checkpoints(tmp_path) == before
        assert other.read().previous == "../../a/checkpoints/slices"


@pytest.mark.parametrize(("method", "after"), [("save", 2), ("finish", 0), ("keep_only", 2)])
def test_a_killed_request_goes_on_after_its_runs_were_moved(method, after, original, keys, fresh, make_data, tmp_path):
    runs, moved = tmp_path / "runs", tmp_path / "elsewhere/runs"
    shutil.copytree(original, runs / "a")

    def killed():
        owner = RequestRecord if after == 0 else SliceStore
        setattr(owner, method, killing(owner, method, after))
        unlearn(runs, make_data(keys))

    assert in_a_child(killed) == signal.SIGKILL
    moved.parent.mkdir()
    runs.rename(moved)
    if (moved / "b/unlearned.ckpt").is_file():
        settle_slices(moved / "b")
    else:
        unlearn(moved, make_data(keys))
    assert checkpoints(moved / "a") == set()
    assert complete(moved / "b")
    assert successor_of(moved / "a") == moved / "b"
    assert SliceStore(moved / "b/slices").read().previous is None
    assert_equal(Sisa.load(moved / "b/unlearned.ckpt"), fresh)


def test_a_request_whose_folder_is_not_found_is_neither_forgotten_nor_free(copy, keys, make_data, tmp_path):
    mine, begun = SliceStore(tmp_path / "a/checkpoints/slices"), SliceStore(tmp_path / "b/slices")
    mine.begin(begun, mine.read(), "last.ckpt")
    (tmp_path / "b").rename(tmp_path / "away")
    before = checkpoints(tmp_path)
    for folder in ("away", "again"):
        with pytest.raises(ConfigError, match=r"was begun in .*/b, and no slices lie there now\. Put that folder back"):
            delete(make_model(), make_data(keys), copy, tmp_path / folder)
    with pytest.raises(ConfigError, match=r"/b took its place\. Fit elsewhere"):
        fit(tmp_path / "a", make_data())
    with pytest.raises(CheckpointError, match=r"/b takes the place of .*/a, and no slices lie there now"):
        successor_of(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"/a/checkpoints/slices is not found, and nothing was deleted\. Put both"):
        settle_slices(tmp_path / "away")
    assert checkpoints(tmp_path) == before

    (tmp_path / "other").rename(tmp_path / "a")
    (tmp_path / "away").rename(tmp_path / "b")
    delete(make_model(), make_data(keys), copy, tmp_path / "b")
    assert checkpoints(tmp_path / "a") == set()
    assert complete(tmp_path / "b")
