import json

import pytest
import torch

from lightning_unlearn.data.classes import class_indices
from lightning_unlearn.data.forget import (
    ByAttribute,
    ListedSamples,
    RandomCount,
    RandomFraction,
    WholeClasses,
)
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError

CLASSES = ["cat", "dog", "bird"]


def make(n=300, keep=None):
    keys = [f"{CLASSES[i % 3]}/{i:04d}.png" for i in range(n)]
    keep = range(n) if keep is None else keep
    return Samples(
        torch.zeros(len(keep), 1, 2, 2, dtype=torch.uint8),
        torch.tensor([i % 3 for i in keep]),
        [keys[i] for i in keep],
        {"owner": [f"person {i % 7}" for i in keep]},
    )


def candidates_of(samples, without=()):
    return torch.tensor([i for i in range(len(samples)) if i not in set(without)])


def select(rule, samples, candidates=None, seed=0):
    return rule.select(samples, candidates_of(samples) if candidates is None else candidates, seed, CLASSES)


@pytest.mark.parametrize(("fraction", "count"), [(0.04, 12), (0.0001, 1), (0.5, 150), (1.0, 300)])
def test_random_fraction_takes_the_exact_count_in_order(fraction, count):
    chosen = select(RandomFraction(fraction), make())
    assert len(chosen.indices) == count
    assert chosen.indices.dtype == torch.int64
    assert torch.equal(chosen.indices, chosen.indices.unique())
    assert chosen.never_trained == []


def test_random_fraction_draws_from_candidates_and_classes_only():
    samples = make()
    candidates = candidates_of(samples, without=range(0, 300, 2))
    indices = select(RandomFraction(0.2, classes=["dog", 2]), samples, candidates).indices
    assert len(indices) == 20
    assert torch.isin(indices, candidates).all()
    assert set(samples.targets[indices].tolist()) == {1, 2}


def test_random_draws_are_even_and_differ_by_seed():
    samples = make()
    counts = torch.zeros(300)
    for seed in range(500):
        counts[select(RandomFraction(0.1), samples, seed=seed).indices] += 1
    # 50 draws of each sample on average, standard deviation 6.7.
    assert counts.min() > 50 - 5 * 6.7
    assert counts.max() < 50 + 5 * 6.7
    assert not torch.equal(select(RandomFraction(0.1), samples).indices, select(RandomFraction(0.1), samples, seed=1).indices)


def test_a_draw_survives_the_deletion_of_other_samples():
    full = make()
    keys = {full.keys[i] for i in select(RandomCount(30), full).indices.tolist()}
    rest = make(keep=[i for i in range(300) if full.keys[i] in keys or i % 5])
    again = {rest.keys[i] for i in select(RandomCount(30), rest).indices.tolist()}
    assert again == keys


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), True])
def test_bad_fractions(fraction):
    with pytest.raises(DataError, match=r"fraction is .*needed: above 0"):
        RandomFraction(fraction)


def test_bad_counts():
    with pytest.raises(DataError, match="count is 0"):
        RandomCount(0)
    with pytest.raises(DataError, match="count is 301, but there are only 300"):
        select(RandomCount(301), make())
    with pytest.raises(DataError, match="no training sample to choose from"):
        select(RandomFraction(0.1), make(), torch.empty(0, dtype=torch.int64))


def test_whole_classes_by_label_and_name():
    samples = make()
    candidates = candidates_of(samples, without=[0, 1, 2])
    indices = select(WholeClasses(["bird", 0]), samples, candidates).indices
    assert indices.tolist() == [i for i in range(3, 300) if i % 3 in (0, 2)]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["dgo"], r"no class 'dgo'; the classes are cat, dog, bird. Did you mean 'dog'"),
        ([3], "Class 3 is out of range; needed: 0 to 2"),
        ([-1], "Class -1 is out of range"),
        ([True], "True is no class"),
        ([1.0], r"1\.0 is no class"),
        (["dog", 1], "Class 1 is given twice"),
    ],
)
def test_bad_classes(classes, message):
    for rule in (WholeClasses(classes), RandomFraction(0.5, classes=classes)):
        with pytest.raises(DataError, match=message):
            select(rule, make())


def test_classes_without_samples_and_empty_lists():
    samples = make()
    with pytest.raises(DataError, match="No training sample is of class 'dog'"):
        select(WholeClasses(["dog"]), samples, candidates_of(samples, without=range(1, 300, 3)))
    with pytest.raises(DataError, match="list of classes is empty"):
        WholeClasses([])
    assert class_indices(["2", 1], ["0", "1", "2"]) == [2, 1]


def test_a_number_that_is_the_name_of_another_class_is_no_label():
    names = ["1", "10", "2", "3"]  # folders, sorted
    message = (
        r"label 1, named '10', or that of the name '1', with the label 0. Give one .* in quotes: \"\['10'\]\" or \"\['1'\]\""
    )
    with pytest.raises(DataError, match=message):
        class_indices([1], names)
    with pytest.raises(DataError, match=r"Class 10 is out of range; needed: 0 to 3, or the name in quotes: \"\['10'\]\""):
        class_indices([10], names)
    assert class_indices(["10", "1"], names) == [1, 0]
    assert class_indices([0, "3"], names) == [0, 3]


def test_listed_samples_reports_what_was_never_trained_on(tmp_path):
    samples = make()
    path = tmp_path / "request.json"
    path.write_text(json.dumps(["bird/0005.png", "0004.png", "cat/0000.png"]))
    chosen = select(ListedSamples(path), samples, candidates_of(samples, without=[4]))
    assert chosen.indices.tolist() == [0, 5]
    assert chosen.never_trained == ["dog/0004.png"]
    with pytest.raises(DataError, match=r"request.json names 3 samples, but the model was never trained on any"):
        select(ListedSamples(path), samples, candidates_of(samples, without=[0, 4, 5]))


def test_errors_of_a_list_name_the_file(tmp_path):
    path = tmp_path / "request.txt"
    path.write_text("cat/0000.jpg")
    with pytest.raises(DataError, match=r"request.txt: No training sample has.*did you mean 'cat/0000.png'"):
        select(ListedSamples(path), make())


def test_by_attribute():
    samples = make()
    rule = ByAttribute("owner", ["person 3", "person 5"])
    chosen = select(rule, samples, candidates_of(samples, without=[3]))
    assert chosen.indices.tolist() == [i for i in range(4, 300) if i % 7 in (3, 5)]
    assert chosen.never_trained == ["cat/0003.png"]


def test_by_attribute_refuses_what_is_not_there():
    samples = make()
    with pytest.raises(DataError, match=r"no attribute 'owners'; the data set has owner. Did you mean 'owner'"):
        select(ByAttribute("owners", ["person 1"]), samples)
    with pytest.raises(DataError, match=r"No sample has the value 'persn 1' of 'owner'. Did you mean 'person 1'"):
        select(ByAttribute("owner", ["persn 1"]), samples)
    with pytest.raises(DataError, match="no table of attributes"):
        select(ByAttribute("owner", ["x"]), Samples(samples.images, samples.targets, samples.keys))
    with pytest.raises(DataError, match="never trained on any"):
        select(ByAttribute("owner", ["person 0"]), samples, candidates_of(samples, without=range(0, 300, 7)))
    with pytest.raises(DataError, match="list of values is empty"):
        ByAttribute("owner", [])


def test_descriptions_name_no_sample_and_no_person():
    assert RandomFraction(0.04).describe() == "random 4 %"
    assert RandomFraction(0.125, classes=["dog", 2]).describe() == "random 12.5 % within classes dog, 2"
    assert RandomCount(30).describe() == "30 random samples"
    assert WholeClasses([3]).describe() == "class 3"
    assert ListedSamples("requests/ann.csv").describe() == "listed in ann.csv"
    assert ByAttribute("owner", ["Ann", 3]).describe() == "by attribute owner (2 values)"


def test_entries_that_name_a_sample_again_are_noted_once(tmp_path, caplog):
    keys = ["a.png", "b.png", "c.png"]
    samples = Samples(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), keys)
    (tmp_path / "r.txt").write_text("b.png\nb.png\n")
    rule = ListedSamples(tmp_path / "r.txt")
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert rule.select(samples, torch.arange(3), 0, ["0"]).indices.tolist() == [1]
    assert caplog.text.count("lists samples twice: 1 entries more") == 1
