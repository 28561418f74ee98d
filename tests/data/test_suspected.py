import pytest
import torch

from lightning_unlearn.data.by_score import read_scores
from lightning_unlearn.data.parts import parts_of_saved
from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.suspected import SuspectedMislabels, label_names, read_suggested
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.detection.result import Detection, Scored
from lightning_unlearn.exceptions import AlreadyForgottenError, DataError

N = 10
KEYS = [f"class/{i}.png" for i in range(N)]
NAMES = ["cat", "maillot", "maillot"]


@pytest.fixture
def samples():
    return Samples(torch.zeros(N, 1, 2, 2, dtype=torch.uint8), torch.arange(N) % 3, KEYS)


@pytest.fixture
def path(tmp_path):
    """Two scores in opposite order; 2, 5 and 7 are marked, the last one by hand."""
    lines = ["key,index,loss,aum,label,suggested,suspected"]
    for i, key in enumerate(KEYS):
        mark = "yes" if i == 7 else int(i in (2, 5))
        lines.append(f"{key},{i},{i / 10},{-i},{label_names(NAMES)[i % 3]},{label_names(NAMES)[(i + 1) % 3]},{mark}")
    file = tmp_path / "scores.csv"
    file.write_text("\n".join([*lines, "class/gone.png,10,9,9,cat,cat,1"]) + "\n")
    return file


def select(rule, samples, candidates=None):
    candidates = torch.arange(len(samples)) if candidates is None else candidates
    return rule.select(samples, candidates, 0, NAMES).indices.tolist()


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ({}, [2, 5, 7]),
        ({"count": 3}, [7, 8, 9]),
        ({"count": 2, "column": "aum"}, [0, 1]),
        ({"quantile": 0.8}, [8, 9]),
        ({"quantile": 0.75}, [8, 9]),
        ({"threshold": 0.7}, [7, 8, 9]),
        ({"threshold": -1, "column": "aum"}, [0, 1]),
    ],
)
def test_marked_counted_or_above(arguments, chosen, samples, path):
    assert select(SuspectedMislabels(path, **arguments), samples) == chosen


def test_only_what_the_model_was_trained_on(samples, path):
    candidates = torch.tensor([0, 1, 2, 3])
    assert select(SuspectedMislabels(path), samples, candidates) == [2]
    assert select(SuspectedMislabels(path, quantile=0.5), samples, candidates) == [2, 3]
    with pytest.raises(DataError, match=r"count is 5, but .* for only 4"):
        select(SuspectedMislabels(path, count=5), samples, candidates)


def test_descriptions_name_no_sample(path):
    assert SuspectedMislabels(path).describe() == "suspected labels: as marked in scores.csv"
    assert SuspectedMislabels(path, "aum", count=3).describe() == "suspected labels: 3 highest by aum in scores.csv"
    assert "the quantile 0.9 by the first score" in SuspectedMislabels(path, quantile=0.9).describe()
    assert "0.5 or more by the first score" in SuspectedMislabels(path, threshold=0.5).describe()


def test_suggestions_are_read_by_name(path):
    assert read_suggested(path, [*KEYS, "new.png"], NAMES).tolist() == [*((i + 1) % 3 for i in range(N)), -1]
    assert label_names(NAMES) == ["cat", "maillot (1)", "maillot (2)"]
    path.write_text(path.read_text().replace("maillot (2)", "dog"))
    with pytest.raises(DataError, match=r"suggests 'dog', which is no class; needed: cat, maillot \(1\)"):
        read_suggested(path, KEYS, NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 3, "quantile": 0.5}, "Both count 3 and quantile 0.5"),
        ({"column": "loss"}, "nothing says how high a score is suspect"),
        ({"count": 0}, "count is 0"),
        ({"count": True}, "count is True"),
        ({"quantile": 1}, "quantile is 1"),
        ({"threshold": float("inf")}, "threshold is inf"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        SuspectedMislabels("scores.csv", **arguments)


def test_bad_files(samples, path, tmp_path):
    with pytest.raises(DataError, match=r"no column 'lose'.* Did you mean 'loss'"):
        select(SuspectedMislabels(path, "lose", count=1), samples)
    with pytest.raises(DataError, match="no such file"):
        select(SuspectedMislabels(tmp_path / "gone.csv"), samples)
    path.write_text(path.read_text().replace("maillot (1),0", "maillot (1),perhaps", 1))
    with pytest.raises(DataError, match="row 2 has 'perhaps' in `suspected`"):
        select(SuspectedMislabels(path), samples)
    (tmp_path / "plain.csv").write_text(f"key,loss\n{KEYS[0]},1\n")
    with pytest.raises(DataError, match="no column 'suspected'; it has key, loss"):
        select(SuspectedMislabels(tmp_path / "plain.csv"), samples)


STRANGE = [" lead", "trail ", "new\nline", "return\rin it", "next\x85line", "line\u2028sep", "a,b", 'quo"te', "lead", "trail"]


def test_what_detect_writes_is_read_whatever_the_keys(tmp_path):
    samples = Samples(torch.zeros(N, 1, 2, 2, dtype=torch.uint8), torch.arange(N) % 3, STRANGE)
    suspected = torch.arange(N) % 2 == 0
    values = torch.arange(N, dtype=torch.float64)
    scored = Scored("Loss", values, suspected, 0.0, "")
    labels, suggested = samples.targets, (samples.targets + 1) % 3
    Detection(STRANGE, torch.arange(N), NAMES, labels, suggested, None, {"loss": scored}).save(tmp_path / "scores.csv")
    assert select(SuspectedMislabels(tmp_path / "scores.csv"), samples) == [0, 2, 4, 6, 8]
    assert read_scores(tmp_path / "scores.csv", STRANGE).tolist() == values.tolist()
    assert torch.equal(read_suggested(tmp_path / "scores.csv", STRANGE, NAMES), suggested)


def test_marked_samples_that_the_data_lack_are_counted_once(samples, path, caplog):
    rule = SuspectedMislabels(path)
    select(rule, samples)
    select(rule, samples)
    assert [record.getMessage() for record in caplog.records if "marks 1 samples whose keys" in record.getMessage()] == [
        f"{path} marks 1 samples whose keys the data do not have; they are passed over. Where they were not deleted, was the "
        "file changed, or made from other data?"
    ]


def test_a_column_of_keys_holds_no_scores(samples, path):
    with pytest.raises(DataError, match="the column `key` names samples and holds no scores; it has key, index, loss, aum"):
        select(SuspectedMislabels(path, "key", count=1), samples)


@pytest.mark.parametrize("arguments", [{}, {"threshold": 0.7}])
def test_a_repair_that_is_repeated_has_nothing_left(arguments, samples, path, caplog):
    """Also where files that were removed are gone, which is then no reason to warn."""
    rule = SuspectedMislabels(path, **arguments)
    removed = [KEYS[i] for i in select(rule, samples)]
    caplog.clear()  # `select` knew no split
    split = SavedSplit([], [key for key in KEYS if key not in removed], [], [*removed, "class/gone.png"])
    for keys in (KEYS, KEYS[:7]):
        there = Samples(samples.images[: len(keys)], samples.targets[: len(keys)], keys)
        with pytest.raises(AlreadyForgottenError, match="earlier requests have removed the 4 samples of this one"):
            parts_of_saved(there, split, SuspectedMislabels(path, **arguments), 0, NAMES, "x")
    assert not caplog.records


def test_suspects_that_are_gone_and_still_known_are_no_end(samples, path):
    split = SavedSplit([], [*KEYS, "class/gone.png"], [], [])
    there = Samples(samples.images[:1], samples.targets[:1], KEYS[:1])
    with pytest.raises(DataError, match=r"suspects 4 samples whose images are gone although the model still knows them"):
        parts_of_saved(there, split, SuspectedMislabels(path), 0, NAMES, "x")
    # A file of other data suspects none of these.
    other = Samples(samples.images, samples.targets, [f"other/{i}.png" for i in range(N)])
    with pytest.raises(DataError, match=r"none of the 10 training samples, .* was it made from other data"):
        select(SuspectedMislabels(path), other)


def test_a_spreadsheet_with_semicolons(samples, path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b",", b";"))
    with pytest.raises(DataError, match="separated by semicolons; needed: commas"):
        select(SuspectedMislabels(path), samples)


def test_scores_of_other_labels_are_refused(samples, path):
    """Made before labels were changed, or for another draw of the noise; empty cells and a file without labels say nothing."""
    path.write_text(path.read_text().replace("0.3,-3,cat,", "0.3,-3,,"))
    assert select(SuspectedMislabels(path), samples) == [2, 5, 7]
    samples.targets[4] = 2
    for arguments in ({}, {"count": 3}):
        with pytest.raises(DataError, match=r"other labels than the data for 1 of 10 samples: .* Run detect"):
            select(SuspectedMislabels(path, **arguments), samples)
    path.write_text("\n".join(line.replace(",label,", ",given,") for line in path.read_text().splitlines()))
    assert select(SuspectedMislabels(path), samples) == [2, 5, 7]
