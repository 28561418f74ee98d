import pytest

from lightning_unlearn.data.tables import class_list, read_attributes, read_rows, write_rows
from lightning_unlearn.exceptions import DataError

KEYS = ["cats/1.png", "cats/2.png", "dogs/1.png"]


def written(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_class_lists(tmp_path):
    assert class_list(["cat", "dog"]) == [("cat", "cat"), ("dog", "dog")]
    path = written(tmp_path, "cat\n\nn01443537 goldfish, Carassius auratus\nn2\tbig dog\nT-shirt top\n")
    assert class_list(path) == [
        ("cat", "cat"),
        ("n01443537", "goldfish, Carassius auratus"),
        ("n2", "big dog"),
        ("T-shirt top", "T-shirt top"),
    ]


def test_bad_class_lists(tmp_path):
    with pytest.raises(DataError, match="no such file; needed: a list of classes"):
        class_list(tmp_path / "none.txt")
    with pytest.raises(DataError, match="list of classes is empty"):
        class_list(written(tmp_path, "\n"))
    with pytest.raises(DataError, match="'cat' stands twice"):
        class_list(["cat", "dog", "cat"])
    with pytest.raises(DataError, match="not UTF-8"):
        class_list(written(tmp_path, b"\xff\xfe"))
    with pytest.raises(DataError, match="cannot be read"):
        class_list(tmp_path)


@pytest.mark.parametrize(
    ("content", "positional"),
    [
        ("key,owner,sub\ndogs/1.png,c,3\ncats/1.png,a,1\ngone.png,x,9\ncats/2.png,b,2\n", False),
        ("owner,file,sub\nc,dogs/1.png,3\nb,2.png,2\na,cats/1.png,1\n", False),
        ("index,owner,sub\n2,c,3\n0,a,1\n1,b,2\n", True),
        ("owner,sub\na,1\nb,2\nc,3\n", True),
    ],
)
def test_rows_find_their_samples(tmp_path, content, positional):
    table = read_attributes(written(tmp_path, content), KEYS, positional)
    assert table.columns == {"owner": ["a", "b", "c"], "sub": ["1", "2", "3"]}
    assert table.named.get("owner", {}).get("gone.png") == ("x" if "gone" in content else None)
    assert bool(table.named) == ("key" in content or "file" in content)


@pytest.mark.parametrize(
    ("content", "positional", "message"),
    [
        ("", False, "is empty"),
        ("owner\na\nb\nc\n", False, "needed: a column `key` or `file`"),
        ("owner\na\nb\n", True, "2 rows .*or 3 rows in the order"),
        ("key,owner\ncats/1.png,a\n", False, "no row for 2 samples, 'cats/2.png' the first"),
        ("file,owner\n1.png,a\n2.png,b\n", False, "no row for 2 samples, 'cats/1.png'"),
        ("key,owner\ncats/1.png,a\ncats/1.png,b\n", False, "two rows for the sample 'cats/1.png'"),
        ("key,owner,owner\n", False, "two columns of one name"),
        ("key,owner\ncats/1.png\n", False, "row 2 has 1 cells and the header 2"),
        (b"\xff\xfe\x00", False, "not UTF-8"),
    ],
)
def test_bad_tables(tmp_path, content, positional, message):
    with pytest.raises(DataError, match=message):
        read_attributes(written(tmp_path, content), KEYS, positional)


@pytest.mark.parametrize("indices", ["1230", "123", "12", "0112"])
def test_positions_are_those_of_all_samples_that_are_there(tmp_path, indices):
    # Rows beyond the data are no samples that are gone: what is gone may be the first one, and every row its neighbour's.
    rows = "".join(f"{index},{owner}\n" for index, owner in zip(indices, "abcd", strict=False))
    with pytest.raises(DataError, match=r"the positions 0 to 2, each once.*in a column `key` or `file`"):
        read_attributes(written(tmp_path, f"index,owner\n{rows}"), KEYS, positional=True)


# Names of files may hold all of it.
STRANGE = [
    " lead",
    "trail ",
    "plain",
    "new\nline",
    "return\rin it",
    "both\r\n",
    "next\x85line",
    "line\u2028sep",
    "a,b",
    'quo"te',
    "\x0b\x1c",
]


def test_what_is_written_is_read_back(tmp_path):
    rows = [["key", "n"], *([key, str(i)] for i, key in enumerate(STRANGE))]
    write_rows(tmp_path / "t.csv", rows)
    assert read_rows(tmp_path / "t.csv", "a table") == rows
    assert read_attributes(tmp_path / "t.csv", STRANGE[::-1]).columns == {"n": [str(i) for i in range(len(STRANGE))][::-1]}


def test_spaces_around_a_key_count_only_where_it_has_them(tmp_path):
    path = written(tmp_path, "key , owner\n a, x \na,y\n b ,z\n")
    for there in (["a", " a", "b"], ["b"]):
        table = read_attributes(path, there)
        assert table.columns == {"owner": [{"a": "y", " a": "x", "b": "z"}[key] for key in there]}
        assert table.named["owner"] == {" a": "x", "a": "y", " b ": "z", "b": "z"}


def test_other_separators_are_named(tmp_path):
    with pytest.raises(DataError, match="separated by semicolons; needed: commas"):
        read_attributes(written(tmp_path, b"\xef\xbb\xbfkey;loss\na;0,5\n"), ["a"])
    with pytest.raises(DataError, match="separated by tabulators"):
        read_attributes(written(tmp_path, "key\tloss\na\t1\n"), ["a"])
