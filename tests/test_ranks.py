import pytest

from lightning_unlearn.exceptions import METHOD_FAILURES, RunError, UnlearnError
from lightning_unlearn.ranks import barrier, is_first, lock_on_first, method_failures


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_the_only_process_is_the_first(monkeypatch):
    assert is_first()
    barrier()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first()
    monkeypatch.setenv("RANK", "0")
    assert is_first()


def test_only_the_first_locks(tmp_path, monkeypatch):
    with lock_on_first(tmp_path):
        with pytest.raises(RunError), lock_on_first(tmp_path):
            pass
        monkeypatch.setenv("RANK", "1")
        with lock_on_first(tmp_path):
            pass


def test_a_caller_further_up_may_hold_the_folder(tmp_path):
    with lock_on_first(tmp_path):
        with lock_on_first(tmp_path / ".", again=True):
            pass
        with pytest.raises(RunError), lock_on_first(tmp_path):  # still held
            pass
    with lock_on_first(tmp_path, again=True), pytest.raises(RunError), lock_on_first(tmp_path):
        pass
    with lock_on_first(tmp_path):
        pass


def test_on_several_ranks_others_go_on_only_where_all_ranks_end_alike(monkeypatch):
    assert method_failures() == METHOD_FAILURES
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for ranks, kinds in ((1, METHOD_FAILURES), (2, (UnlearnError,))):
        monkeypatch.setattr("torch.distributed.get_world_size", lambda ranks=ranks: ranks)
        assert method_failures() == kinds
