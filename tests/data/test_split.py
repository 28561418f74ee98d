import json

import pytest
import torch

from lightning_unlearn.data.split import ForgetSplit, SavedSplit, copies_left, positions
from lightning_unlearn.data.vision import Samples, content_keys
from lightning_unlearn.exceptions import CheckpointError, DataError


def ints(*values):
    return torch.tensor(values, dtype=torch.int64)


def test_a_whole_split_is_accepted():
    split = ForgetSplit(ints(1, 4), ints(0, 7), ints(0, 1, 4, 7))
    assert split.forget.tolist() == [1, 4]
    assert split.retain.tolist() == [0, 7]


@pytest.mark.parametrize(
    ("forget", "retain", "message"),
    [
        (ints(), ints(0, 1, 2), "nothing to forget"),
        (ints(0, 1, 2), ints(), "All 3 samples are to be forgotten"),
        (ints(0, 1), ints(1, 2), "stand twice in the split, sample 1"),
        (ints(0, 0), ints(1, 2), "stand twice in the split, sample 0"),
        (ints(0), ints(1), "leaves 1 training samples out and holds 0 others"),
        (ints(0, 1), ints(2, 9), "leaves 0 training samples out and holds 1 others"),
        (ints(-1), ints(0, 1, 2), "holds 1 others"),
        (torch.tensor([0.0]), ints(1, 2), "forget part is torch.float32"),
        (torch.tensor([True, False, False]), ints(1, 2), "forget part is torch.bool"),
        (ints(0), ints(1, 2).view(1, 2), r"retain part is torch.int64 of shape \(1, 2\)"),
    ],
)
def test_a_broken_split_is_refused(forget, retain, message):
    with pytest.raises(DataError, match=message):
        ForgetSplit(forget, retain, ints(0, 1, 2))


def test_save_and_load_give_back_the_same(tmp_path):
    split = SavedSplit(["a", 'quote"\n\u202e'], ["b"], [], ["c#2"], withdrawn=["d"], labels={"a": 3, "c#2": 0, "d": 1})
    path = tmp_path / "deep" / "split.json"
    split.save(path)
    assert SavedSplit.load(path) == split
    SavedSplit(["z"], [], [], []).save(path)
    assert SavedSplit.load(path).forget == ["z"]
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]


def test_labels_of_keys_that_somebody_edited_are_not_known(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(GOOD | {"labels": {"forget": [4], "retain": [3, 3]}}))
    assert SavedSplit.load(path).labels == {"a": 4}


GOOD = {"forget": ["a"], "retain": ["b"], "unseen": [], "removed": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        (json.dumps(GOOD)[:-5], "damaged"),
        ("[1]", "no saved split"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "unseen"}), "no saved split: unseen missing"),
        (json.dumps(GOOD | {"retain": "b"}), "'retain' is not a list of keys"),
        (json.dumps(GOOD | {"retain": [1]}), "'retain' is not a list of keys"),
        (json.dumps(GOOD | {"unseen": ["a"]}), "names the sample 'a' twice"),
        (json.dumps(GOOD | {"retain": ["b", "b"]}), "names the sample 'b' twice"),
        (json.dumps(GOOD | {"labels": [3]}), "'labels' is no list of labels for each part"),
        (json.dumps(GOOD | {"labels": {"test": []}}), "'labels' is no list of labels for each part"),
        (json.dumps(GOOD | {"labels": {"retain": 3}}), "'labels' is no list of labels for each part"),
        (json.dumps(GOOD | {"labels": {"retain": [True]}}), "'labels' is no list of labels for each part"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        SavedSplit.load(path)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no saved split can be read"):
        SavedSplit.load(tmp_path / "split.json")
    (tmp_path / "split.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        SavedSplit.load(tmp_path / "split.json")


def test_positions_follow_keys_through_deletions():
    samples = Samples(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), ints(0, 0, 0, 0), ["a", "c", "d", "f"])
    assert positions(["f", "b", "a"], samples).tolist() == [0, 3]
    assert positions([], samples).dtype == torch.int64


class Reading:
    """Images that count how often they are read."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index]


def with_copies():
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[40] = images[3]
    images[41] = images[3]
    images[42] = images[5]
    return images


@pytest.mark.parametrize("lazy", [False, True])
def test_copies_are_found_like_by_brute_force(lazy):
    images = with_copies()
    samples = Samples(Reading(images) if lazy else images, torch.zeros(50, dtype=torch.int64), content_keys(images))
    forget = ints(3, 5, 41)
    retain = torch.tensor([i for i in range(50) if i not in (3, 5, 41)])
    same = {j: [i for i in forget.tolist() if images[i].equal(images[j])] for j in retain.tolist()}
    # Each retained sample once, also where it is a copy of several forgotten ones.
    expected = [(samples.keys[found[0]], samples.keys[j]) for j, found in same.items() if found]
    assert (len(expected), sum(map(len, same.values()))) == (2, 3)
    assert copies_left(samples, forget, retain) == expected


def test_large_sets_are_read_only_on_request():
    n = 5001
    images = torch.zeros(n, 1, 2, 2, dtype=torch.uint8)
    images.view(n, 4)[:, :2] = torch.stack([torch.arange(n) % 256, torch.arange(n) // 256], 1)
    images[-1] = images[0]
    samples = Samples(Reading(images), torch.zeros(n, dtype=torch.int64), [str(i) for i in range(n)])
    assert copies_left(samples, ints(0), torch.arange(1, n)) is None
    assert samples.images.reads == 0
    assert copies_left(samples, ints(0), torch.arange(1, n), read=True) == [("0", "5000")]
