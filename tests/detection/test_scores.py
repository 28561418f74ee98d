import pytest
import torch
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.data.by_score import ByScore, read_scores
from lightning_unlearn.data.noise import LabelNoise, NoisyLabels
from lightning_unlearn.detection.scores import Fold, SampleScores, sample_scores
from lightning_unlearn.exceptions import ChainError, ConfigError
from lightning_unlearn.stages import FineTune, Retrain

RECIPE = Recipe(untrained, 30, {"accelerator": "cpu"})


def test_folds_are_even_disjoint_and_complete(make_data):
    data = make_data()
    parts = []
    for number in range(4):
        data.draw(3, Fold(number, 4))
        parts.append(data.part("forget")[1])
    assert [len(part) for part in parts] == [68, 68, 67, 67]
    assert torch.equal(torch.cat(parts).sort().values, data.part("train")[1])
    data.draw(4, Fold(0, 4))
    assert not torch.equal(data.part("forget")[1], parts[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


def test_memorised_labels_are_the_wrong_ones(make_data, fresh, folder, tmp_path):
    data = make_data(label_noise=LabelNoise(0.2), seed=0)
    before = data.fingerprint("forget")
    scores = sample_scores(fresh, RECIPE, data, Bank(folder), folds=2, repeats=2)
    assert data.fingerprint("forget") == before
    assert scores.leak is None
    assert len(list(folder.glob("*/weights.ckpt"))) == 4
    samples, index = data.part("train")
    assert scores.keys == [samples.keys[i] for i in index.tolist()]
    wrong = samples.targets[index] != samples.true_targets[index]
    # Wrong labels are right only where they were learned by heart.
    assert float(scores.memorisation[wrong].mean()) > 0.7
    assert float(scores.memorisation[~wrong].mean()) < 0.35

    scores.save(tmp_path / "scores.csv")
    read = read_scores(tmp_path / "scores.csv", samples.keys)
    assert torch.equal(read[index], scores.memorisation)
    assert int(read.isnan().sum()) == len(samples) - len(index)  # the unseen part
    data.draw(0, ByScore(tmp_path / "scores.csv", fraction=0.1))
    most = data.part("forget")[1]
    data.draw(0, NoisyLabels())
    # One in five of all samples has a wrong label.
    assert float(torch.isin(most, data.part("forget")[1]).float().mean()) > 0.4


def test_a_second_call_trains_nothing(make_data, fresh, folder):
    data = make_data(label_noise=LabelNoise(0.2), seed=0, forget=None)
    first = sample_scores(fresh, RECIPE, data, Bank(folder), folds=2, repeats=2)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/weights.ckpt")}
    again = sample_scores(fresh, RECIPE, data, Bank(folder), folds=2, repeats=2)
    assert torch.equal(first.memorisation, again.memorisation)
    assert written == {path: path.stat().st_mtime_ns for path in folder.glob("*/weights.ckpt")}
    assert len(data.part("forget")[1]) == 0


def test_the_leak_is_large_for_a_method_that_forgets_nothing(make_data, fresh, folder):
    data = make_data(label_noise=LabelNoise(0.2), seed=0)
    nothing = sample_scores(fresh, RECIPE, data, Bank(folder), 2, 1, lambda: [FineTune(max_steps=1, cache=False)])
    exact = sample_scores(fresh, RECIPE, data, Bank(folder), 2, 1, lambda: [Retrain(max_epochs=30)])
    assert torch.equal(nothing.memorisation, exact.memorisation)
    assert nothing.leak is not None
    assert exact.leak is not None
    assert float(nothing.leak.median()) > 1 + float(exact.leak.median())
    # What is left is what had to be learned by heart.
    assert float(nothing.leak[nothing.memorisation == 1].mean()) > float(nothing.leak[nothing.memorisation == 0].mean())


def test_a_table_with_two_columns(tmp_path):
    SampleScores(["a", "b"], torch.tensor([0.1, -1.0]).double(), torch.tensor([2.5, 1e-9]).double()).save(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "key,memorisation,leak\na,0.10000000149011612,2.5\nb,-1.0,1e-09\n".replace(
        "1e-09", repr(float(torch.tensor(1e-9).double()))
    )


@pytest.mark.parametrize(("folds", "repeats"), [(1, 1), (2, 0), (271, 1)])
def test_bad_sizes(folds, repeats, make_data, fresh, tmp_path):
    with pytest.raises(ConfigError, match=f"folds is {folds} and repeats is {repeats}"):
        sample_scores(fresh, RECIPE, make_data(), Bank(tmp_path), folds, repeats)


def test_a_method_is_checked_before_anything_is_trained(make_data, fresh, tmp_path):
    with pytest.raises(ChainError):
        sample_scores(fresh, RECIPE, make_data(), Bank(tmp_path), method=list)
    assert not list(tmp_path.iterdir())
