"""`kill -9` in the middle of a request: it goes on, ends the same, and leaves nothing behind that saw a deleted sample."""

import os
import signal
import traceback
from dataclasses import replace

import pytest

from lightning_unlearn.requests.record import RequestRecord
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.sisa.store import SliceStore, settle_slices
from lightning_unlearn.stages import RetrainShards
from tests.sisa.conftest import assert_equal, checkpoints, fit, make_model, make_trainer

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
        other.write(replace(mine.read(), previous=str(mine.folder), checkpoint=name))
        settle_slices(tmp_path / "b")
        assert checkpoints(tmp_path) == before
