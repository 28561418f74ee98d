import json

import numpy as np
import pytest

from lightning_unlearn.data.request import nearest, read_entries
from lightning_unlearn.exceptions import DataError


def written(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=content.dtype == object)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.txt", "a.png\n\n  b.png \r\n", ["a.png", "  b.png "]),
        ("r.TXT", b"\xef\xbb\xbf3\n5", ["3", "5"]),
        ("r.csv", "key\na.png\nb.png\n", ["a.png", "b.png"]),
        ("r.csv", "a.png\nb.png\n", ["a.png", "b.png"]),
        ("r.csv", '"with, comma.png"\n', ["with, comma.png"]),
        ("r.json", [3, "a.png"], [3, "a.png"]),
        ("r.json", {"forget": [3], "reason": "asked"}, [3]),
        ("r.npy", np.array([4, 2]), [4, 2]),
        ("r.npy", np.array(["a", "bcd"]), ["a", "bcd"]),
    ],
)
def test_every_format_is_read(tmp_path, name, content, expected):
    assert read_entries(written(tmp_path, name, content)) == expected


def test_a_column_is_picked_by_name(tmp_path):
    path = written(tmp_path, "r.csv", "who,file\nann,a.png\nbob,b.png\n")
    assert read_entries(path, "file") == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"columns who, file; say with --data.forget.column"):
        read_entries(path)
    with pytest.raises(DataError, match=r"no column 'fiel'.*Did you mean 'file'"):
        read_entries(path, "fiel")
    with pytest.raises(DataError, match="line 3 has nothing"):
        read_entries(written(tmp_path, "r.csv", "who,file\nann,a.png\nbob,\n"), "file")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", "", "names no sample"),
        ("r.txt", " \n\n", "names no sample"),
        ("r.csv", "key\n", "names no sample"),
        ("r.json", [], "names no sample"),
        ("r.json", {"forget": []}, "names no sample"),
        ("r.npy", np.array([], dtype=np.int64), "names no sample"),
        ("r.txt", b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        ("r.txt", b"abc\x00def", "binary"),
        ("r.json", "[1, 2", "not valid JSON"),
        ("r.json", "[" * 100_000, "not valid JSON"),
        ("r.json", f"[{'9' * 5000}]", "not valid JSON"),
        ("r.json", b"[\xff]", "not UTF-8"),
        ("r.json", {"remove": [1]}, "holds no list"),
        ("r.json", 3, "holds no list"),
        ("r.json", [True, False], "entry 0 is a boolean.*positions of its true entries"),
        ("r.json", [1, 2.0], r"entry 1 is a float, 2\.0"),
        ("r.json", [None], "entry 0 is a NoneType"),
        ("r.json", [[1]], "entry 0 is a list"),
        ("r.npy", np.array([True, False]), "flatnonzero"),
        ("r.npy", np.array([1.0]), "float64; needed: integers"),
        ("r.npy", np.array([[1, 2]]), r"shape \(1, 2\)"),
        ("r.npy", np.array([{"a": 1}], dtype=object), "not an array of integers or texts"),
        ("r.npy", b"", "not an array"),
        ("r.npy", b"PK\x03\x04garbage", "not an array|cannot be read"),
        ("r.pkl", b"", "ending '.pkl' is not known"),
        ("r", b"", "ending '' is not known"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_entries(written(tmp_path, name, content))


# The end of the header, and a byte string among its names.
@pytest.mark.parametrize(("sign", "other"), [(b"}", b" "), (b"'shape", b"b'hape")])
def test_a_damaged_array_is_refused(tmp_path, sign, other):
    path = written(tmp_path, "r.npy", np.array([4, 2]))
    path.write_bytes(path.read_bytes().replace(sign, other, 1))
    with pytest.raises(DataError, match="not an array of integers or texts"):
        read_entries(path)


def test_missing_file_folder_and_needless_column(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_entries(tmp_path / "r.txt")
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(DataError, match="no such file"):
        read_entries(tmp_path / "d.txt")
    with pytest.raises(DataError, match=r"only \.csv files have columns"):
        read_entries(written(tmp_path, "r.txt", "a"), "key")


def test_a_comma_without_quotes(tmp_path):
    with pytest.raises(DataError, match=r'line 4 has 2 fields and the first line 1.*"a, b.png"'):
        read_entries(written(tmp_path, "r.csv", "key\nc.png\n\na, b.png\n"))
    with pytest.raises(DataError, match="line 2 has 3 fields and the first line 2"):
        read_entries(written(tmp_path, "r.csv", "who,key\nann,a, b.png\n"), "key")


def test_nearest_searches_large_sets_in_short_time():
    keys = [f"n{i:07d}/img_{i:07d}.jpg" for i in range(300_000)]
    assert nearest("n0123456/img_0123456.jpeg", keys) == " Did you mean 'n0123456/img_0123456.jpg'?"
    assert nearest("something else", ["xyz"]) == ""


def test_entries_stay_as_they_are(tmp_path):
    strange = [" lead.png", "trail.png ", "next\x85line", "line\u2028sep"]
    assert read_entries(written(tmp_path, "r.txt", "\n".join(strange))) == strange
    assert read_entries(written(tmp_path, "r.json", strange)) == strange
    assert read_entries(written(tmp_path, "r.npy", np.array(strange))) == strange
    csv = written(tmp_path, "r.csv", b'key\r\n lead.png\r\n"two\r\nlines"\r\n"a\xe2\x80\xa8b"\r\n')
    assert read_entries(csv) == [" lead.png", "two\r\nlines", "a\u2028b"]


def test_semicolons_are_named(tmp_path):
    path = written(tmp_path, "r.csv", "who;file\nann;a.png\n")
    for column in (None, "file"):
        with pytest.raises(DataError, match="separated by semicolons"):
            read_entries(path, column)
    assert read_entries(written(tmp_path, "r.csv", "a;b.png\n")) == ["a;b.png"]
