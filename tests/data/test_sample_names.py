import pytest

from lightning_unlearn.data.sample_names import SampleNames
from lightning_unlearn.exceptions import DataError

HASH = "0123456789abcdef"
NAMES = SampleNames(["cats/1.png", "cats/2.png", "dogs/1.png", HASH, f"{HASH}#2", f"{HASH}#3", "b17"])


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([2, 0], [0, 2]),
        (["2", "0"], [0, 2]),
        (["cats/1.png"], [0]),
        (["2.png", "dogs/1.png"], [1, 2]),
        ([HASH], [3, 4, 5]),
        ([f"{HASH}#2"], [4]),
        ([HASH, f"{HASH}#2"], [3, 4, 5]),
        (["b17"], [6]),
    ],
)
def test_names_are_resolved(entries, expected):
    assert NAMES.resolve(entries) == expected


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([7], r"Index 7 is outside.*0 to 6"),
        (["-1"], r"Index -1 is outside"),
        (["1.png"], r"that of 2 samples, 'cats/1.png' and 'dogs/1.png'"),
        (
            ["cats/l.png"],
            r"No training sample.*'cats/l.png'. Correct it; or, where a sample was never in training, remove the line",
        ),
        (["Cats\\1.PNG"], r"did you mean 'cats/1.png'\?"),
        (["cats/1.jpeg"], r"did you mean 'cats/1.png'\?"),
        (["mice/1.png", "1.png"], r"'mice/1.png'. Correct it.*'1.png' is that of 2 samples"),
        ([f"x{i}" for i in range(12)], r"'x8', 'x9' and 2 more. Correct them"),
        ([*range(5, 17), 18, 19, 20], r"Indices 7, 8, .*16 and 3 more are outside"),
        # An index among names is no index.
        (["b17", "3"], r"No training sample has the key or file name '3'"),
        (["2.0"], r"No training sample has the key or file name '2.0'"),
        (["True"], "No training sample"),
        (["/etc/cats/1.png"], "did you mean 'cats/1.png'"),
        (["9" * 5000], "No training sample has the key or file name '9"),
    ],
)
def test_wrong_names_are_refused(entries, message):
    with pytest.raises(DataError, match=message):
        NAMES.resolve(entries)


@pytest.mark.parametrize(
    ("entries", "expected", "merged"),
    [([1, 1], [1], 1), (["cats/2.png", "2.png"], [1], 1), ([HASH, HASH], [3, 4, 5], 1), ([HASH, f"{HASH}#2"], [3, 4, 5], 0)],
)
def test_a_sample_that_is_named_twice_counts_once(entries, expected, merged):
    names = SampleNames(NAMES.keys)
    assert names.resolve(entries) == expected
    assert names.merged == merged


def test_a_bare_hash_names_copies_also_where_the_first_is_gone():
    assert SampleNames([f"{HASH}#2", "fedcba9876543210"]).resolve([HASH]) == [0]


def test_only_content_keys_have_copies():
    assert SampleNames(["shot", "shot#2"]).resolve(["shot"]) == [0]


@pytest.mark.parametrize("keys", [[str(i) for i in range(1000, 1050)], ["a", *(f"cats/{i}" for i in range(1000, 1049))]])
def test_where_samples_are_called_by_numbers_none_is_a_position(keys):
    names = SampleNames(keys)
    assert names.resolve([1017, "1018"]) == [keys.index(next(k for k in keys if k.endswith(n))) for n in ("1017", "1018")]
    with pytest.raises(DataError, match=r"No training sample has the key or file name '17'. .* Positions do not count, since"):
        names.resolve(["17"])
    # Also where the only such sample is gone.
    with pytest.raises(DataError, match="'1', '0'"):
        SampleNames(["a", "b"], gone=["7"]).resolve([1, 0])


@pytest.mark.parametrize(("name", "hint"), [("catz", True), ("ca", True), ("dog", False), ("cat2", False), ("mice", False)])
def test_the_folder_of_a_class_may_be_written_wrongly(name, hint):
    """By a letter and not by a number, and only where there is no such class."""
    keys = ["cat/1.png", "cats/2.png", "dog/3.png", "dogs/1.png"]
    classes = SampleNames(keys, folders=["cat", "dog", "dogs"])
    with pytest.raises(DataError, match="did you mean 'cat/1.png'" if hint else rf"'{name}/1.png'\. Correct it"):
        classes.resolve([f"{name}/1.png"])
    # Folders of people are not looked at.
    with pytest.raises(DataError, match=rf"'{name}/1.png'\. Correct it"):
        SampleNames(keys).resolve([f"{name}/1.png"])


def test_a_hash_without_a_letter_is_no_number():
    digits = "1234567890123456"
    assert SampleNames([HASH, digits, f"{digits}#2"]).resolve([2, 0]) == [0, 2]
    assert SampleNames([HASH, digits, f"{digits}#2"]).resolve([digits]) == [1, 2]
    with pytest.raises(DataError, match="file name '0'"):
        SampleNames([digits, digits[::-1]]).resolve([0])


def test_spaces_count_only_where_a_key_has_them():
    names = SampleNames([" a", "a", "b"])
    assert names.resolve([" a"]) == [0]
    assert names.resolve(["a ", " b "]) == [1, 2]
    assert names.resolve([" 2", "0 "]) == [0, 2]
