"""Files that were deleted before a request came: what the model still knows of them is not passed over."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_unlearn.cautions import of_request
from lightning_unlearn.data.arrays import Arrays
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.earlier import judge_as_saved, keep_forgotten
from lightning_unlearn.data.folders import ImageFolder
from lightning_unlearn.data.forget import ByAttribute, ListedSamples, RandomCount, WholeClasses
from lightning_unlearn.data.forgotten_classes import resolve_classes, split_without_data
from lightning_unlearn.data.from_datasets import FromDatasets
from lightning_unlearn.data.saved_split import SavedSplit, class_key
from lightning_unlearn.data.some_classes import SomeClasses
from lightning_unlearn.data.whole import without_forgotten
from lightning_unlearn.exceptions import AlreadyForgottenError, DataError, NothingKnownError

CLASSES = ["ant", "bee", "cat"]
OWNERS = ["anna", "bob", "eve"]


class Photos:
    """A folder with five images of each of three classes, three owners in turn, and a model's split beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        draw = np.random.default_rng(0)
        for part in ("train", "val"):
            for name in CLASSES:
                (root / part / name).mkdir(parents=True)
                for i in range(5):
                    pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / part / name / f"{name}{i}.png")
        self.keys = [f"{name}/{name}{i}.png" for name in CLASSES for i in range(5)]
        self.owner = {key: OWNERS[i % 3] for i, key in enumerate(self.keys)}
        self.write_table({"key": self.keys})
        self.save(self.data())

    def write_table(self, named: dict[str, list[str]]) -> None:
        [(by, names)] = named.items()
        rows = [f"{name},{self.owner[key]}" for name, key in zip(names, self.keys, strict=True)]
        (self.root / "owners.csv").write_text("\n".join([f"{by},owner", *rows]))

    def dataset(self, **kwargs):
        table = {"attributes": self.root / "owners.csv", "classes": CLASSES} | kwargs
        return ImageFolder(self.root / "train", self.root / "val", 8, **table)

    def data(self, rule=None, dataset=None, judged=None):
        """Data for a request on top of the split; `judged`: for a look at the request that led to it."""
        data = UnlearningDataModule(dataset or self.dataset(), forget=rule, unseen=0, resident=False)
        if judged is not None:
            data.use_split_of(self.root / "model.ckpt", forgotten_is_removed=not judged)
        return data

    def save(self, data):
        data.saved_split().save(self.root / "split.json")

    def asked(self, rule, dataset=None):
        data = self.data(rule, dataset, judged=False)
        samples, index = data.part("forget")
        return [samples.keys[i] for i in index.tolist()]

    def delete(self, keys):
        for key in keys:
            (self.root / "train" / key).unlink()

    def of(self, name):
        return [key for key in self.keys if name in (self.owner[key], key.partition("/")[0])]


@pytest.fixture
def photos(tmp_path):
    return Photos(tmp_path)


RULES = {"anna": ByAttribute("owner", ["anna"]), "cat": WholeClasses(["cat"])}


@pytest.mark.parametrize("all_of_it", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_what_the_model_knows_of_gone_files_is_refused(photos, name, all_of_it):
    gone = photos.of(name)[None if all_of_it else 2 :]
    photos.delete(gone)
    who = {"anna": "The chosen values of 'owner' name", "cat": "The class cat has"}[name]
    message = f"{who} {len(gone)} samples whose images are gone although the model still knows them, '{gone[0]}' among them"
    with pytest.raises(DataError, match=f"{message}. Unlearning looks at the images: restore them"):
        photos.asked(RULES[name])
    # The same words as those of a list.
    (photos.root / "list.txt").write_text("\n".join(photos.of(name)))
    with pytest.raises(DataError, match=f"list.txt names {len(gone)} samples whose images are gone although the model still"):
        photos.asked(ListedSamples(photos.root / "list.txt"))


def test_who_is_not_asked_for_may_be_gone(photos):
    photos.delete([key for key in photos.of("bob") if key not in photos.of("cat")])
    assert photos.asked(RULES["cat"]) == photos.of("cat")
    assert photos.asked(RULES["anna"]) == photos.of("anna")
    assert not any(photos.data(rule, judged=False).parts.caution for rule in RULES.values())


@pytest.mark.parametrize("name", RULES)
def test_files_may_be_deleted_after_their_request(photos, name):
    """And the next requests, repeated ones and a look at the result go on."""
    photos.save(photos.data(RULES[name], judged=False))
    photos.delete(photos.of(name))
    for judged in (photos.data(RULES[name], judged=True), photos.data(judged=True)):
        judge_as_saved(judged)
        assert len(judged.part("forget")[1]) == 0
        assert len(judged.part("retain")[1]) == len(photos.keys) - len(photos.of(name))
    with pytest.raises(AlreadyForgottenError, match=f"have removed the {len(photos.of(name))} samples of this one"):
        photos.asked(RULES[name])
    training = photos.data(RULES[name])
    keep_forgotten(training, photos.root / "model.ckpt")
    assert len(training.part("retain")[1]) == len(photos.keys) - len(photos.of(name))
    other = {"anna": ByAttribute("owner", ["bob", "anna"]), "cat": WholeClasses(["bee"])}[name]
    assert photos.asked(other) == photos.of({"anna": "bob", "cat": "bee"}[name])
    photos.save(photos.data(other, judged=False))
    assert photos.asked(RandomCount(2))
    assert not photos.data(other, judged=True).parts.caution


def test_half_of_what_was_forgotten_may_be_gone(photos):
    photos.save(photos.data(RULES["anna"], judged=False))
    photos.delete(photos.of("anna")[::2])
    judged = photos.data(RULES["anna"], judged=True)
    judge_as_saved(judged)
    assert judged.forget_rule is not None
    assert len(judged.part("forget")[1]) == len(photos.of("anna")[1::2])
    assert (judged.parts.never_trained, judged.parts.forgotten_before) == ([], [])
    again = photos.data(ByAttribute("owner", ["anna", "bob"]), judged=False)
    assert sorted(again.parts.forgotten_before) == sorted(photos.of("anna"))


def test_unseen_files_may_be_gone(photos):
    split = SavedSplit.load(photos.root / "split.json")
    unseen = photos.of("cat")[:2]
    replace(split, retain=[key for key in split.retain if key not in unseen], unseen=unseen).save(photos.root / "split.json")
    photos.delete(unseen)
    assert photos.asked(RULES["cat"]) == photos.of("cat")[2:]
    data = photos.data(RULES["anna"], judged=False)
    assert data.parts.never_trained == [key for key in unseen if photos.owner[key] == "anna"]
    photos.delete(photos.of("cat")[2:])
    replace(split, retain=photos.of("ant"), unseen=photos.of("cat")).save(photos.root / "split.json")
    with pytest.raises(NothingKnownError, match="5 are known, but they are unseen"):
        photos.asked(RULES["cat"])


def test_a_value_that_nobody_has_is_named_though_others_are_gone(photos):
    photos.delete(photos.of("anna"))
    with pytest.raises(DataError, match=r"No sample has the value 'ana' of 'owner'. Did you mean 'anna'"):
        photos.asked(ByAttribute("owner", ["anna", "ana"]))


def test_a_table_by_file_names_and_a_smaller_choice_of_samples(photos):
    photos.write_table({"file": [Path(key).name for key in photos.keys]})
    lost = r"The chosen values of 'owner' name {} samples whose images are gone"
    # What is left out by `train_size` is gone as well as what was deleted.
    with pytest.raises(DataError, match=lost.format(".")):
        photos.asked(RULES["anna"], photos.dataset(train_size=5))
    photos.delete(photos.of("anna")[:1])
    with pytest.raises(DataError, match=lost.format(1)):
        photos.asked(RULES["anna"])


def test_a_file_name_that_another_sample_has_tells_nothing_of_one_that_is_gone(photos):
    """`other/ant0.png` is bob's, `ant/ant0.png` was anna's, and the table was written anew since."""
    photos.delete(photos.of("anna"))
    left = [key for key in photos.keys if photos.owner[key] != "anna"]
    (photos.root / "train/ant/ant1.png").rename(photos.root / "train/bee/ant0.png")
    rows = [f"{Path(key).name},{photos.owner[key]}" for key in left if key != "ant/ant1.png"]
    (photos.root / "owners.csv").write_text("\n".join(["file,owner", "ant0.png,bob", *rows]))
    assert photos.asked(ByAttribute("owner", ["bob"])) == [key for key in photos.of("bob") if key != "ant/ant1.png"]


def test_folders_are_known_by_their_own_names_and_after_a_choice(photos):
    (photos.root / "classes.txt").write_text("ant\tpismire\nbee\tapis\ncat\ttabby\n")
    named = {"classes": photos.root / "classes.txt"}
    photos.save(photos.data(dataset=photos.dataset(**named)))
    photos.delete(photos.of("cat")[:2])
    with pytest.raises(DataError, match="The classes apis, tabby have 2 samples whose images are gone"):
        photos.asked(WholeClasses(["apis", "tabby"]), photos.dataset(**named))
    chosen = SomeClasses(photos.dataset(**named), ["tabby", "pismire"])
    assert chosen.train.folders == ["cat", "ant"]
    SavedSplit([], [*photos.of("cat"), *photos.of("ant")], [], []).save(photos.root / "split.json")
    with pytest.raises(DataError, match="The class 0 has 2 samples whose images are gone"):
        photos.asked(WholeClasses([0]), chosen)
    assert photos.asked(WholeClasses([1]), chosen) == photos.of("ant")


class Listed(torch.utils.data.Dataset):
    """As torchvision's ImageFolder."""

    def __init__(self, root, keys):
        self.root, self.classes = str(root), CLASSES
        self.samples = [(str(root / key), CLASSES.index(key.partition("/")[0])) for key in keys]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        with Image.open(path) as image:
            return image.copy(), label


def test_folders_of_torchvision_are_known_where_they_name_the_class(photos):
    left = [key for key in photos.keys if key not in photos.of("cat")[:2]]
    test = Listed(photos.root / "val", photos.keys)
    dataset = FromDatasets("photos", Listed(photos.root / "train", left), test)
    with pytest.raises(DataError, match="The class cat has 2 samples whose images are gone"):
        photos.asked(RULES["cat"], dataset)
    other = Listed(photos.root / "train", left)
    other.classes = CLASSES[::-1]
    assert not FromDatasets("photos", other, test).train.folders


def test_where_nothing_tells_that_is_said(photos):
    draw = np.random.default_rng(1)
    images, labels = draw.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), np.arange(6) % 3
    np.savez(photos.root / "a.npz", images=images, labels=labels)
    (photos.root / "rows.csv").write_text("owner\n" + "\n".join(["anna", "bob"] * 2 + ["anna"]))
    whole = Arrays(photos.root / "a.npz", photos.root / "a.npz")
    SavedSplit([], whole.train.keys, [], []).save(photos.root / "split.json")
    np.savez(photos.root / "b.npz", images=images[:5], labels=labels[:5])
    dataset = Arrays(photos.root / "b.npz", photos.root / "a.npz", attributes=photos.root / "rows.csv")
    said = "1 sample that the model was trained on is gone, and nothing tells their"
    for rule, what in ((WholeClasses([0]), "class"), (ByAttribute("owner", ["anna"]), "value of 'owner'")):
        [caution] = of_request(photos.data(rule, dataset, judged=False))
        assert caution.startswith(f"{said} {what}. What this request means of them stays known")


def test_a_class_that_was_forgotten_without_data_may_be_deleted(photos):
    split = split_without_data(photos.root / "model.ckpt", SavedSplit([class_key(2)], [class_key(0), class_key(1)], [], []))
    split.save(photos.root / "split.json")
    photos.delete(photos.of("cat"))
    resolved = resolve_classes(split, photos.dataset().train)
    assert set(photos.of("cat")) <= set(resolved.forget)
    assert not set(photos.of("cat")) & set(resolved.retain)
    with pytest.raises(AlreadyForgottenError):
        photos.asked(RULES["cat"])
    assert photos.asked(WholeClasses(["bee"])) == photos.of("bee")


def test_a_class_that_an_earlier_request_removed_is_in_no_part_and_is_not_taught(photos):
    unseen = photos.of("cat")[:1] + photos.of("ant")[:1]
    first = UnlearningDataModule(photos.dataset(), forget=RULES["cat"], unseen=2, resident=False)
    SavedSplit([], [key for key in photos.keys if key not in unseen], unseen, []).save(photos.root / "split.json")
    first.use_split_of(photos.root / "model.ckpt")
    assert (first.gone_classes.tolist(), first.removed_classes.tolist(), len(first.part("test")[1])) == ([2], [], 15)
    assert len(without_forgotten(first).part("test")[1]) == 10
    photos.save(first)
    for delete in (False, True):
        if delete:
            photos.delete(photos.of("cat"))
        data = photos.data(RandomCount(2), judged=False)
        assert (data.gone_classes.tolist(), data.removed_classes.tolist()) == ([2], [2])
        for part, there in (("test", [0, 1]), ("unseen", [0])):
            samples, index = data.part(part)
            assert samples.targets[index].unique().tolist() == there
        # Also in a copy as references have it, whatever was looked at before.
        assert len(without_forgotten(data).part("test")[1]) == 10
        # A judgement of the request itself still looks at them.
        assert len(photos.data(judged=True).part("test")[1]) == 15
    assert set(photos.of("cat")) <= {*data.saved_split().removed, *data.saved_split().unseen}


def test_a_class_is_not_gone_while_the_model_knows_a_sample_whose_file_is(photos):
    cats = photos.of("cat")
    photos.delete(cats[:1])
    (photos.root / "list.txt").write_text("\n".join(cats[1:]))
    data = photos.data(ListedSamples(photos.root / "list.txt"), judged=False)
    assert (data.forgotten_classes, data.forgets_whole_classes, data.gone_classes.tolist()) == ([], False, [])
    photos.save(data)
    later = photos.data(RandomCount(2), judged=False)
    assert (later.removed_classes.tolist(), len(later.part("test")[1])) == ([], 15)


def test_what_is_not_known_of_gone_samples_is_said_where_nothing_is_left_to_do(photos):
    """And a class of which only a deleted sample, still known, is missing is not taken to be gone."""
    images, labels = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4
    np.savez(photos.root / "a.npz", images=images, labels=labels)
    whole = Arrays(photos.root / "a.npz", photos.root / "a.npz")
    zeros = [key for key, label in zip(whole.train.keys, labels, strict=True) if label == 0]
    SavedSplit([], [key for key in whole.train.keys if key != zeros[0]], [], zeros[:1]).save(photos.root / "split.json")
    left = [i for i in range(12) if labels[i] != 0 or whole.train.keys[i] == zeros[0]]
    np.savez(photos.root / "b.npz", images=images[left], labels=labels[left])
    dataset = Arrays(photos.root / "b.npz", photos.root / "a.npz")
    with pytest.raises(AlreadyForgottenError, match=r"removed the 1 sample of this one. 2 samples .* gone, and nothing tells"):
        photos.asked(WholeClasses([0]), dataset)
    # One of the first class was removed and is gone, the last class was deleted, and nothing tells what they were.
    rest = [i for i in range(12) if labels[i] != 3 and whole.train.keys[i] != zeros[0]]
    np.savez(photos.root / "c.npz", images=images[rest], labels=labels[rest])
    data = photos.data(RandomCount(1), Arrays(photos.root / "c.npz", photos.root / "a.npz"), judged=False)
    assert data.removed_classes.tolist() == []


def test_the_split_says_of_which_class_gone_samples_of_arrays_were(photos):
    """Of the last class all are removed, then they and a retained sample of another one leave the arrays."""
    images, labels = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4

    def arrays(name, left):
        np.savez(photos.root / name, images=images[left], labels=labels[left])
        np.savez(photos.root / "test.npz", images=images, labels=labels)
        return Arrays(photos.root / name, photos.root / "test.npz")

    whole = arrays("a.npz", np.arange(12))
    photos.save(photos.data(WholeClasses([3]), whole))
    left = arrays("b.npz", np.flatnonzero(labels != 3)[1:])
    data = photos.data(RandomCount(1), left, judged=False)
    assert (data.removed_classes.tolist(), data.gone_classes.tolist(), len(data.part("test")[1])) == ([3], [3], 9)
    photos.save(data)
    again = photos.data(RandomCount(1), left, judged=False)
    assert again.removed_classes.tolist() == [3]
    with pytest.raises(DataError, match="1 samples whose images are gone although the model still knows them"):
        photos.asked(WholeClasses([int(labels[0])]), left)


def test_a_sample_that_came_later_was_not_forgotten_with_its_class(photos):
    key = photos.of("cat")[-1]
    SavedSplit([class_key(2)], [k for k in photos.keys if k != key], [], []).save(photos.root / "split.json")
    judged = photos.data(judged=True)
    samples, index = judged.part("forget")
    assert [samples.keys[i] for i in index.tolist()] == photos.of("cat")[:-1]
    assert key not in {samples.keys[i] for i in judged.part("retain")[1].tolist()}
