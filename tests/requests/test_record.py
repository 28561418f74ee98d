"""What a run writes down of its request, where it was damaged since."""

import pytest

from lightning_unlearn.exceptions import RunError
from lightning_unlearn.requests.ledger import BEGUN, LEDGER, START, Entry
from lightning_unlearn.requests.record import settle

LINE = Entry(1, "t", "t", "rule", ["a"], "method", "5" * 64, None, "6" * 64, START).sealed().line() + "\n"


@pytest.mark.parametrize("damaged", [b"", LINE.encode()[:-20], b"\xff" + LINE.encode(), b"[" * 100_000], ids=len)
def test_a_damaged_line_of_a_finished_run_is_named(tmp_path, damaged):
    (tmp_path / BEGUN).write_bytes(damaged)
    with pytest.raises(RunError, match=rf"{BEGUN} is damaged .*Restore the file from a backup; or delete {tmp_path}"):
        settle(tmp_path)
    assert (tmp_path / BEGUN).read_bytes() == damaged
    assert not (tmp_path / LEDGER).exists()
    (tmp_path / BEGUN).write_text(LINE)
    settle(tmp_path)
    assert (tmp_path / LEDGER).read_text() == LINE
    assert not (tmp_path / BEGUN).exists()
