"""Files that are whole or absent, and locked folders."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch

from lightning_unlearn import files
from lightning_unlearn.exceptions import ConfigError, RunError
from lightning_unlearn.files import lock_folder, write_atomic, write_text_atomic

HOLD = """
import sys, time
from lightning_unlearn.files import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "ä b.txt"
    write_text_atomic(path, "first\r\n")
    write_text_atomic(str(path), "zweite ✓\n")
    assert path.read_bytes() == "zweite ✓\n".encode()
    assert names(path.parent) == ["ä b.txt"]


def test_permissions_follow_the_umask_and_then_the_old_file(tmp_path):
    path = tmp_path / "a"
    before = os.umask(0o027)
    try:
        write_text_atomic(path, "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_text_atomic(path, "y")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_follows_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write_text_atomic(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), ConfigError("ours")])
def test_a_failing_writer_leaves_the_old_file_and_its_own_error(tmp_path, error):
    path = tmp_path / "a"
    write_text_atomic(path, "old")

    def writer(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomic(path, writer)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("size", [50_000, 500_000])
def test_full_disk_leaves_the_old_file(tmp_path, size):
    """A file-size limit makes the system refuse a write without a full disk; torch.save wraps that error."""
    path = tmp_path / "a.pt"
    write_atomic(path, lambda file: torch.save(torch.ones(3), file))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"a\.pt: File too large\. What was there is unchanged; raise the file size"):
            write_atomic(path, lambda file: torch.save(torch.zeros(size), file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(torch.load(path, weights_only=True), torch.ones(3))
    assert names(tmp_path) == ["a.pt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_permission(tmp_path):
    write_text_atomic(tmp_path / "a", "old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="make the folder writable"):
            write_text_atomic(tmp_path / "a", "new")
        assert (tmp_path / "a").read_text() == "old"
    finally:
        tmp_path.chmod(0o700)


def test_impossible_targets(tmp_path):
    (tmp_path / "folder").mkdir()
    write_text_atomic(tmp_path / "file", "old")
    with pytest.raises(RunError, match="give the path of a file, not of a folder"):
        write_text_atomic(tmp_path / "folder", "x")
    with pytest.raises(RunError, match=r"file/below.* unchanged"):
        write_text_atomic(tmp_path / "file" / "below", "x")
    with pytest.raises(RunError, match="choose a shorter name"):
        write_text_atomic(tmp_path / ("n" * 300), "x")
    assert names(tmp_path) == ["file", "folder"]


def test_leftovers_of_killed_writers_go_and_those_of_live_ones_stay(tmp_path):
    for name in (".a.1-dead.tmp", ".a.2-young.tmp", ".a.3-live.tmp", ".ab.4-other.tmp"):
        (tmp_path / name).write_bytes(b"half")
        if "young" not in name:
            os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    with open(tmp_path / ".a.3-live.tmp", "r+b") as live:
        files.fcntl.flock(live, files.fcntl.LOCK_EX)
        write_text_atomic(tmp_path / "a", "x")
    assert names(tmp_path) == [".a.2-young.tmp", ".a.3-live.tmp", ".ab.4-other.tmp", "a"]


def test_second_process_is_told_who_holds_the_folder_until_that_one_is_killed(tmp_path):
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        start = time.perf_counter()
        with pytest.raises(RunError, match=rf"run is in use by process {holder.pid}\."), lock_folder(folder):
            pass
        assert time.perf_counter() - start < 1
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with lock_folder(folder):
            assert (folder / ".lock").read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_lock_is_released_after_an_error_and_refused_twice(tmp_path):
    def work():
        with lock_folder(tmp_path):
            with pytest.raises(RunError, match=f"in use by process {os.getpid()}"), lock_folder(tmp_path):
                pass
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        work()
    with lock_folder(tmp_path):
        pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    with lock_folder(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with lock_folder(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_lock_on_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="Cannot use the folder"), lock_folder(tmp_path / "file"):
        pass


def test_systems_without_locks_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with pytest.warns(UserWarning, match="cannot be locked on this system"), lock_folder(tmp_path):
        write_text_atomic(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"
