import numpy as np
import pytest
import torch

from lightning_unlearn.data.by_score import ByScore, count_above, read_scores
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

N = 40
KEYS = [f"class/{i:03d}.png" for i in range(N)]


@pytest.fixture
def samples():
    return Samples(torch.zeros(N, 1, 2, 2, dtype=torch.uint8), torch.arange(N) % 3, KEYS)


def write(path, scores, keys=KEYS, columns=("score",)):
    lines = [",".join(["key", *columns])]
    lines += [",".join([key, *([str(value)] * len(columns))]) for key, value in zip(keys, scores, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def select(rule, samples, candidates=None, seed=0):
    candidates = torch.arange(len(samples)) if candidates is None else candidates
    return rule.select(samples, candidates, seed, ["a", "b", "c"]).indices


@pytest.mark.parametrize("tenths", range(1, 10))
def test_what_lies_above_a_quantile(tenths):
    # By whole numbers, which round nothing.
    assert [count_above(tenths / 10, n) for n in range(200)] == [n - -(-tenths * n // 10) for n in range(200)]


@pytest.mark.parametrize("kind", ["csv", "npy"])
@pytest.mark.parametrize("end", ["highest", "lowest"])
def test_it_takes_the_end_of_the_sorted_scores(kind, end, samples, tmp_path):
    scores = np.random.default_rng(0).normal(size=N)
    path = tmp_path / f"scores.{kind}"
    write(path, scores.tolist()) if kind == "csv" else np.save(path, scores)
    ranked = np.argsort(-scores if end == "highest" else scores)
    assert select(ByScore(path, end=end, count=7), samples).tolist() == sorted(ranked[:7].tolist())
    # 10 % of 40.
    assert select(ByScore(path, end=end, fraction=0.1), samples).tolist() == sorted(ranked[:4].tolist())


def test_unseen_and_unscored_samples_are_never_chosen(samples, tmp_path):
    scores = np.arange(N, dtype=float)
    scores[30:] = np.nan
    np.save(tmp_path / "scores.npy", scores)
    candidates = torch.arange(0, N, 2)
    assert select(ByScore(tmp_path / "scores.npy", count=3), samples, candidates).tolist() == [24, 26, 28]
    # Of the 15 candidates with a score.
    assert len(select(ByScore(tmp_path / "scores.npy", fraction=0.2), samples, candidates)) == 3


def test_rows_are_found_by_key_wherever_they_stand(samples, tmp_path):
    path = write(tmp_path / "s.csv", [0.5, "", 2, 9], [KEYS[5], KEYS[1], KEYS[8], "class/gone.png"])
    scores = read_scores(path, KEYS)
    assert {i: float(scores[i]) for i in range(N) if not scores[i].isnan()} == {5: 0.5, 8: 2.0}
    assert select(ByScore(path, count=1), samples).tolist() == [8]


def test_scores_keep_all_bits(tmp_path):
    exact = np.random.default_rng(1).normal(size=N)
    path = write(tmp_path / "s.csv", [repr(float(value)) for value in exact])
    assert torch.equal(read_scores(path, KEYS), torch.from_numpy(exact))


def test_equal_scores_are_drawn_by_the_seed_and_blind_to_deletions(samples, tmp_path):
    # Three clear winners, and 37 that share the second place.
    np.save(tmp_path / "s.npy", np.where(np.arange(N) < 3, 1.0, 0.0))
    rule = ByScore(tmp_path / "s.npy", count=10)
    draws = [tuple(select(rule, samples, seed=seed).tolist()) for seed in range(20)]
    assert all(draw[:3] == (0, 1, 2) for draw in draws)
    assert len(set(draws)) > 15
    assert draws[0] == tuple(select(rule, samples, seed=0).tolist())
    # A sample outside the chosen ten is deleted: the others are chosen still.
    without = torch.tensor([i for i in range(N) if i != next(i for i in range(N) if i not in draws[0])])
    assert tuple(select(rule, samples, without).tolist()) == draws[0]


def test_one_of_several_columns(samples, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("memorisation,key,leak\n" + "\n".join(f"{i},{key},{-i}" for i, key in enumerate(KEYS)))
    assert select(ByScore(path, "leak", count=1), samples).tolist() == [0]
    assert select(ByScore(path, "memorisation", count=1), samples).tolist() == [N - 1]
    assert ByScore(path, "leak", "lowest", fraction=0.25).describe() == "25 % lowest by leak in s.csv"
    with pytest.raises(DataError, match="say with `column`"):
        read_scores(path, KEYS)
    with pytest.raises(DataError, match="Did you mean 'leak'"):
        read_scores(path, KEYS, "leek")


def test_a_file_of_detect_with_one_score_needs_no_column(samples, tmp_path):
    path = tmp_path / "s.csv"
    rows = "\n".join(f"{key},{i},{i * i},a,b,{i % 2}" for i, key in enumerate(KEYS))
    path.write_text(f"key,index,loss,label,suggested,suspected\n{rows}")
    assert select(ByScore(path, count=1), samples).tolist() == [N - 1]
    # A column that is no score can still be one where it is named.
    assert read_scores(path, KEYS, "suspected").tolist() == [i % 2 for i in range(N)]
    with pytest.raises(DataError, match="row 2 has 'a' where a score belongs"):
        read_scores(path, KEYS, "label")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "", "begins with nothing"),
        ("s.csv", "name,score\na,1\n", "begins with name, score"),
        ("s.csv", "key\na\n", "none besides `key`"),
        ("s.csv", f"key,score\n{KEYS[0]},1\n{KEYS[0]},2\n", "two rows for the sample"),
        ("s.csv", f"key,score\n{KEYS[0]},high\n", "row 2 has 'high'"),
        ("s.csv", f"key,score\n{KEYS[0]},inf\n", "row 2 has 'inf'"),
        ("s.csv", f"key,score\n{KEYS[0]},1,2\n", "row 2 has 3 cells"),
        ("s.csv", "key,score\nother,1\n", "no score for any of the 40"),
        ("s.txt", "1\n", "'.txt' is not known"),
        ("gone.csv", None, "no such file"),
        ("s.npy", "text", "not an array of numbers"),
    ],
)
def test_bad_files(name, content, message, samples, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        select(ByScore(tmp_path / name, count=1), samples)


def test_bad_arrays(samples, tmp_path):
    path = tmp_path / "s.npy"
    for array in (np.zeros(N - 1), np.zeros((N, 2)), np.array(KEYS), np.ones(N, dtype=bool)):
        np.save(path, array)
        with pytest.raises(DataError, match="needed"):
            select(ByScore(path, count=1), samples)
    np.save(path, np.zeros(N))
    with pytest.raises(DataError, match=r"only \.csv files have columns"):
        select(ByScore(path, "score", count=1), samples)
    with pytest.raises(DataError, match="scores for only 40"):
        select(ByScore(path, count=41), samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither was given"),
        ({"count": 3, "fraction": 0.1}, "both 3 and 0.1"),
        ({"count": 0}, "count is 0"),
        ({"count": True}, "count is True"),
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"count": 1, "end": "top"}, "end is 'top'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        ByScore("scores.csv", **arguments)


def test_no_score_is_an_empty_cell_alone(tmp_path):
    path = write(tmp_path / "s.csv", [0.5, "", "nan"], KEYS[:3])
    with pytest.raises(DataError, match="row 4 has 'nan' where a score belongs; needed: a finite number, or an empty cell"):
        read_scores(path, KEYS)
    np.save(tmp_path / "s.npy", np.where(np.arange(N) == 3, np.inf, 1.0))
    with pytest.raises(DataError, match="entry 3 is infinite"):
        read_scores(tmp_path / "s.npy", KEYS)


def test_two_rows_may_mean_one_sample(tmp_path):
    path = write(tmp_path / "s.csv", [1, 2], ["a", "a "])
    with pytest.raises(DataError, match="two rows for the sample 'a'"):
        read_scores(path, ["a"])
    assert read_scores(path, ["a ", "a"]).tolist() == [2, 1]
