"""What was forgotten earlier stays out of every part, view and loader, whatever files come and go."""

from dataclasses import replace

import pytest
import torch

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.earlier import judge_as_saved, keep_forgotten, only_withdraws, trained_on
from lightning_unlearn.data.forget import ListedSamples, RandomFraction, WholeClasses
from lightning_unlearn.data.reading import pick
from lightning_unlearn.data.saved_split import SavedSplit, class_key
from lightning_unlearn.data.views import VIEWS
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.exceptions import AlreadyForgottenError, DataError, NothingKnownError
from lightning_unlearn.imitation import Neighbours
from lightning_unlearn.stages import EstimateUnseen


class Spy:
    """Images that may be read but for those of some samples."""

    def __init__(self, images, forbidden):
        self.images, self.forbidden, self.read = images, set(forbidden), set()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        assert index not in self.forbidden, f"the image of sample {index}, which was forgotten before, was read"
        self.read.add(index)
        return self.images[index]


def with_images(digits, images):
    return VisionData("digits", replace(digits.train, images=images), digits.test, digits.classes, digits.mean, digits.std)


def concatenated(one, other):
    targets = torch.cat([one.targets, other.targets])
    return Samples(torch.cat([one.images, other.images]), targets, [*one.keys, *other.keys], by_content=True)


def without(digits, gone):
    kept = torch.tensor([i for i, key in enumerate(digits.train.keys) if key not in gone])
    return VisionData("digits", pick(digits.train, kept), digits.test, digits.classes, digits.mean, digits.std)


@pytest.fixture
def first(make_data, tmp_path):
    """The data of a first request, whose split lies beside its checkpoint."""
    data = make_data()
    data.saved_split().save(tmp_path / "split.json")
    return data


def keys(data, part):
    samples, index = data.part(part)
    return {samples.keys[i] for i in index.tolist()}


def listed(tmp_path, names):
    (tmp_path / "request.txt").write_text("\n".join(names))
    return ListedSamples(tmp_path / "request.txt")


def test_no_image_of_an_earlier_request_is_read(digits, make_data, first, tmp_path, fresh, trained):
    spy = Spy(digits.train.images, first.part("forget")[1].tolist())
    data = make_data(with_images(digits, spy), forget=RandomFraction(0.1), resident=False)
    data.use_split_of(tmp_path / "unlearned.ckpt")
    for view in VIEWS:
        if view != "none":
            data.serve(view)
            for _ in data.train_dataloader():
                pass
    for loader in [*data.val_dataloader(), *data.predict_dataloader()]:
        for _ in loader:
            pass
    collect_outputs(fresh, trained, data)
    # Its targets come from neighbours among retained and unseen samples.
    run_chain(fresh, trained, data, [EstimateUnseen([Neighbours(k=5)], unseen_samples=20)])
    assert len(spy.read) == 300 - len(spy.forbidden)
    # The spy would see it.
    with pytest.raises(AssertionError, match="which was forgotten before"):
        next(iter(data.evaluation_loader("retain", first.part("forget")[1])))


def test_a_long_history_keeps_all_of_it_out_although_files_vanish(digits, make_data, tmp_path):
    make_data().saved_split(everything_trained=True).save(tmp_path / "split.json")
    unseen = keys(make_data(), "unseen")
    gone: set[str] = set()
    forgotten: set[str] = set()
    for number in range(4):
        data = make_data(without(digits, gone), forget=RandomFraction(0.1), forget_seed=number)
        data.use_split_of(tmp_path / "model.ckpt")
        assert keys(data, "unseen") == unseen
        assert not forgotten & set().union(*(keys(data, part) for part in ("forget", "retain", "train", "unseen")))
        forgotten |= keys(data, "forget")
        split = data.saved_split()
        split.save(tmp_path / "split.json")
        assert {*split.forget, *split.removed} == forgotten
        if number % 2:
            gone = set(forgotten)
    # Restored from a backup, they stay out.
    data = make_data(digits, forget=None)
    data.use_split_of(tmp_path / "model.ckpt")
    assert not forgotten & keys(data, "retain")
    assert set(data.saved_split().removed) == forgotten


def test_samples_that_came_since_are_in_no_part(digits, make_data, tmp_path):
    some = make_data(without(digits, set(digits.train.keys[:50])))
    some.saved_split(everything_trained=True).save(tmp_path / "split.json")
    data = make_data()
    data.use_split_of(tmp_path / "model.ckpt")
    assert not set(digits.train.keys[:50]) & set().union(*(keys(data, part) for part in ("forget", "retain", "unseen")))


def test_repeated_mixed_and_late_requests(digits, make_data, first, tmp_path):
    before, retained, unseen = (sorted(keys(first, part)) for part in ("forget", "retain", "unseen"))
    # The files of some of the first request are gone, and one of a sample that nobody asked to forget.
    less = without(digits, {*before[:3], retained[0]})

    def asked(names):
        data = make_data(less, forget=listed(tmp_path, names))
        data.use_split_of(tmp_path / "unlearned.ckpt")
        data.part("forget")
        return data

    with pytest.raises(AlreadyForgottenError, match=f"have removed the {len(before)} samples of this one.$"):
        asked(before)
    with pytest.raises(AlreadyForgottenError, match="and 2 more were never trained on"):
        asked([*before[:4], *unseen[:2]])
    with pytest.raises(DataError, match="never trained on any of them"):
        asked(unseen[:2])
    with pytest.raises(DataError, match=f"1 samples whose images are gone .* '{retained[0]}' among them"):
        asked([retained[0], retained[1]])
    with pytest.raises(DataError, match="an index may mean another sample by now"):
        asked(["4", "5"])
    with pytest.raises(DataError, match="No training sample has the key or file name"):
        asked([retained[1], "0123456789abcdeg"])
    data = asked([*before[:5], *retained[5:8], unseen[0]])
    assert keys(data, "forget") == set(retained[5:8])
    assert sorted(data.parts.forgotten_before) == before[:5]
    assert data.parts.never_trained == [unseen[0]]
    assert data.parts.withdrawn == [unseen[0]]
    assert not keys(data, "unseen") & {unseen[0]}
    split = data.saved_split()
    assert unseen[0] not in split.unseen
    # The model still knows the sample whose file is gone.
    assert retained[0] in split.retain
    assert set(split.removed) == set(before)


def test_a_whole_class_twice(make_data, tmp_path):
    first = make_data(forget=WholeClasses([3]))
    first.saved_split().save(tmp_path / "split.json")
    again = make_data(forget=WholeClasses(["3"]))
    again.use_split_of(tmp_path / "unlearned.ckpt")
    with pytest.raises(AlreadyForgottenError):
        again.part("forget")


def test_the_meaning_of_labels_is_kept(digits, make_data, first, tmp_path):
    names = [*digits.classes[1:], digits.classes[0]]
    data = make_data(VisionData("digits", digits.train, digits.test, names, digits.mean, digits.std))
    with pytest.raises(DataError, match=r"labels would mean others.*--data.dataset.classes.*were \[\"0\", "):
        data.use_split_of(tmp_path / "unlearned.ckpt")
    assert SavedSplit.load(tmp_path / "split.json").data == "digits"


def test_another_rule_does_not_bring_forgotten_samples_back(make_data, first, tmp_path):
    judge = make_data(forget=RandomFraction(0.1), forget_seed=5)
    judge.use_split_of(tmp_path / "unlearned.ckpt", forgotten_is_removed=False)
    before = keys(first, "forget")
    assert not before <= keys(judge, "forget")
    assert not before & keys(judge, "retain")
    judge_as_saved(judge)
    assert keys(judge, "forget") == before
    same = make_data()
    same.use_split_of(tmp_path / "unlearned.ckpt", forgotten_is_removed=False)
    judge_as_saved(same)
    assert same.forget_rule is not None


def test_a_model_that_saw_everything_keeps_its_halves_of_the_test_set(make_data, tmp_path):
    first = make_data()
    first.use_split_of(tmp_path / "foreign.ckpt")
    first.saved_split().save(tmp_path / "split.json")
    second = make_data(forget_seed=1)
    second.use_split_of(tmp_path / "unlearned.ckpt")
    assert second.saw_everything
    for part in ("unseen", "test"):
        assert keys(second, part) == keys(first, part)


def test_an_unseen_set_of_its_own_stays_the_unseen_set(digits, make_data, tmp_path):
    other = VisionData("other", digits.test, digits.train, digits.classes, digits.mean, digits.std)
    first = make_data(unseen=other)
    first.saved_split().save(tmp_path / "split.json")
    second = make_data(unseen=other, forget_seed=1)
    second.use_split_of(tmp_path / "unlearned.ckpt")
    assert second.part("unseen")[0] is digits.test


def test_training_goes_on_without_what_was_forgotten(digits, make_data, first, tmp_path):
    for rule in (None, listed(tmp_path, sorted(keys(first, "forget")))):
        data = make_data(forget=rule)
        keep_forgotten(data, tmp_path / "unlearned.ckpt")
        assert keys(data, "train") == keys(first, "retain")
    other = VisionData("test", digits.test, digits.train, digits.classes, digits.mean, digits.std)
    data = make_data(other, forget=None, unseen=0)
    keep_forgotten(data, tmp_path / "unlearned.ckpt")
    assert len(keys(data, "train")) == 100
    data = make_data(forget=None, unseen=0)
    keep_forgotten(data, tmp_path / "elsewhere" / "original.ckpt")
    assert len(keys(data, "train")) == 300


def test_training_goes_on_without_what_was_forgotten_on_new_data_too(digits, make_data, first, tmp_path, caplog):
    """Of other samples, among which forgotten ones are, and of a model that forgot a class without data."""
    gone = sorted(keys(first, "forget"))
    new = pick(digits.test, torch.arange(50))
    there = [i for i, key in enumerate(digits.train.keys) if key in set(gone[:5])]
    both = concatenated(pick(digits.train, torch.tensor(there)), new)
    data = make_data(VisionData("more", both, digits.test, digits.classes, digits.mean, digits.std), forget=None, unseen=0)
    keep_forgotten(data, tmp_path / "unlearned.ckpt")
    assert keys(data, "train") == set(new.keys)
    # Classes and unseen samples are those of the new data.
    named = [f"kind {label}" for label in range(10)]
    data = make_data(VisionData("more", both, digits.test, named, digits.mean, digits.std), forget=None, unseen=0.2)
    keep_forgotten(data, tmp_path / "unlearned.ckpt")
    assert not set(gone) & (keys(data, "train") | keys(data, "unseen"))
    assert (len(keys(data, "unseen")) > 5, set(data.saved_split().removed)) == (True, set(gone[:5]))
    only = VisionData("old", pick(digits.train, torch.tensor(there)), digits.test, digits.classes, digits.mean, digits.std)
    with pytest.raises(DataError, match=r"All samples of old .* made to forget"):
        keep_forgotten(make_data(only, forget=None, unseen=0), tmp_path / "unlearned.ckpt")
    (tmp_path / "by_class").mkdir()
    every = [class_key(label) for label in range(10)]
    SavedSplit([class_key(2)], [key for key in every if key != class_key(2)], [], []).save(tmp_path / "by_class" / "split.json")
    for saw in (digits, with_images(digits, digits.train.images)):
        data = make_data(saw, forget=None, unseen=0)
        keep_forgotten(data, tmp_path / "by_class" / "unlearned.ckpt")
        samples, index = data.part("train")
        assert samples.targets[index].unique().tolist() == [label for label in range(10) if label != 2]
    assert "made to forget the classes 2 without data. They are left out here: 2." in caplog.text
    fewer = VisionData("other", digits.train, digits.test, [*digits.classes, "more"], digits.mean, digits.std)
    data = make_data(fewer, forget=None, unseen=0)
    keep_forgotten(data, tmp_path / "by_class" / "unlearned.ckpt")
    assert len(keys(data, "train")) == len(digits.train)


def test_training_goes_on_with_samples_that_came_since(digits, make_data, first, tmp_path):
    more = concatenated(digits.train, pick(digits.test, torch.arange(3)))
    data = make_data(VisionData("digits", more, digits.test, digits.classes, digits.mean, digits.std), forget=None)
    keep_forgotten(data, tmp_path / "unlearned.ckpt")
    assert keys(data, "train") == keys(first, "retain") | set(digits.test.keys[:3])
    assert keys(data, "unseen") == keys(first, "unseen")


def test_a_reference_that_saw_an_earlier_request_is_none(make_data, first, tmp_path):
    second = make_data(forget_seed=1)
    second.use_split_of(tmp_path / "unlearned.ckpt")
    assert trained_on(second, tmp_path / "unlearned.ckpt") == len(keys(second, "forget"))
    (tmp_path / "reference").mkdir()
    split = second.saved_split()
    SavedSplit([], [*split.retain, split.removed[0]], split.unseen, []).save(tmp_path / "reference" / "split.json")
    assert trained_on(second, tmp_path / "reference" / "model.ckpt") == 1


def test_only_a_list_withdraws_what_is_unseen(digits, make_data, tmp_path):
    make_data().saved_split(everything_trained=True).save(tmp_path / "split.json")
    few = [i for i, label in enumerate(digits.train.targets.tolist()) if label == 3]
    split = SavedSplit.load(tmp_path / "split.json")
    threes = {digits.train.keys[i] for i in few}
    # Of class 3, the model knows none.
    moved = [key for key in split.retain if key in threes]
    replace(split, retain=[key for key in split.retain if key not in threes], unseen=[*split.unseen, *moved]).save(
        tmp_path / "split.json"
    )
    by_class, by_list = make_data(forget=WholeClasses([3])), make_data(forget=listed(tmp_path, sorted(threes)))
    for data in (by_class, by_list):
        data.use_split_of(tmp_path / "model.ckpt")
    with pytest.raises(NothingKnownError, match="33 are known, but they are unseen"):
        only_withdraws(by_class)
    assert only_withdraws(by_list)
    assert not keys(by_list, "unseen") & threes
    # An original is trained on what it is trained on, whatever list its configuration has.
    assert set(by_list.saved_split(everything_trained=True).unseen) >= threes
    # Elsewhere nothing to forget is an error again.
    for checkpoint in (tmp_path / "model.ckpt", None):
        assert only_withdraws(by_list)
        by_list.use_split_of(checkpoint)
        with pytest.raises(NothingKnownError):
            by_list.part("forget")
