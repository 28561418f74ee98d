import copy
from dataclasses import replace

import pytest
import torch

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.earlier import trained_on
from lightning_unlearn.data.forget import ListedSamples, RandomCount, RandomFraction, WholeClasses
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.reading import pick
from lightning_unlearn.data.vision import Samples, VisionData, content_keys
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.weights.trained_on import kept_keys


def index(data, part):
    return data.part(part)[1]


def keys(data, part):
    samples, chosen = data.part(part)
    return {samples.keys[i] for i in chosen.tolist()}


def listed(tmp_path, names):
    path = tmp_path / "request.txt"
    path.write_text("\n".join(names))
    return ListedSamples(path)


def test_the_parts_are_disjoint_and_complete(make_data):
    data = make_data()
    parts = [index(data, name) for name in ("forget", "retain", "unseen")]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(300))
    assert [len(p) for p in parts] == [27, 243, 30]
    assert all(torch.equal(p, p.sort().values) for p in parts)


@pytest.mark.parametrize(("unseen", "count"), [(None, 30), (0.2, 60), (50, 50), (0, 0)])
def test_unseen_is_a_share_or_a_count(unseen, count, make_data):
    data = make_data(unseen=unseen)
    assert len(index(data, "unseen")) == count
    assert ("unseen" in data.present) == (count > 0)
    assert len(data.val_dataloader()) == (count > 0)


def test_unseen_stays_where_another_forget_set_is_drawn(make_data):
    data = make_data()
    before, forget, fingerprint = index(data, "unseen"), index(data, "forget"), data.fingerprint("train")
    data.draw(forget_seed=1)
    assert torch.equal(index(data, "unseen"), before)
    assert not torch.equal(index(data, "forget"), forget)
    # An original is shared by all forget sets, a reference is not.
    assert data.fingerprint("train") == fingerprint
    retained = data.fingerprint("retain")
    data.draw(forget_seed=0)
    assert data.fingerprint("retain") != retained


def test_unseen_as_a_data_set_of_its_own(digits, make_data):
    other = VisionData("other", digits.test, digits.train, digits.classes, digits.mean, digits.std)
    data = make_data(unseen=other)
    assert len(index(data, "forget")) + len(index(data, "retain")) == 300
    assert data.part("unseen")[0] is digits.test
    batch = next(iter(data.evaluation_loader("unseen")))
    assert torch.equal(batch.target, digits.test.targets)


def test_the_saved_split_is_used_again(make_data, tmp_path):
    first = make_data(unseen=50)
    first.saved_split(everything_trained=True).save(tmp_path / "split.json")
    again = make_data(split_seed=7)  # would carve others
    again.use_split_of(tmp_path / "model.ckpt")
    assert keys(again, "unseen") == keys(first, "unseen")
    assert not again.saw_everything
    assert not keys(again, "forget") & keys(first, "unseen")
    assert len(index(again, "forget")) + len(index(again, "retain")) == 250


def test_what_was_forgotten_earlier_is_removed(make_data, tmp_path):
    first = make_data()
    first.saved_split().save(tmp_path / "split.json")
    second = make_data()
    second.use_split_of(tmp_path / "unlearned.ckpt")
    gone = keys(first, "forget")
    assert not gone & (keys(second, "forget") | keys(second, "retain") | keys(second, "unseen"))
    assert set(second.saved_split().removed) == gone


def test_what_a_checkpoint_forgot_is_judged_without_a_rule(make_data, tmp_path):
    first = make_data()
    first.saved_split().save(tmp_path / "split.json")
    judge = make_data(forget=None)
    judge.use_split_of(tmp_path / "unlearned.ckpt", forgotten_is_removed=False)
    for part in ("forget", "retain", "unseen"):
        assert keys(judge, part) == keys(first, part)


def test_the_saved_split_holds_after_files_were_deleted(digits, make_data, tmp_path):
    first = make_data()
    first.saved_split(everything_trained=True).save(tmp_path / "split.json")
    kept = torch.arange(40, 300)
    less = VisionData("digits", pick(digits.train, kept), digits.test, digits.classes, digits.mean, digits.std)
    data = make_data(less)
    data.use_split_of(tmp_path / "model.ckpt")
    assert keys(data, "unseen") == keys(first, "unseen") & set(less.train.keys)


def test_a_foreign_checkpoint_cuts_the_test_set_in_disjoint_halves(make_data, tmp_path):
    data = make_data()
    data.use_split_of(tmp_path / "foreign.ckpt")
    assert data.saw_everything
    unseen, test = index(data, "unseen"), index(data, "test")
    assert torch.equal(torch.cat([unseen, test]).sort().values, torch.arange(100))
    assert data.part("unseen")[0] is data.dataset.test
    assert len(index(data, "forget")) + len(index(data, "retain")) == 300
    named = make_data(unseen=30)
    named.use_split_of(tmp_path / "foreign.ckpt")
    assert not named.saw_everything
    assert len(index(named, "test")) == 100


def test_half_of_the_test_set_stands_for_unseen_where_it_is_asked_for(make_data, tmp_path):
    data = make_data(unseen="half_of_test")
    unseen, test = index(data, "unseen"), index(data, "test")
    assert torch.equal(torch.cat([unseen, test]).sort().values, torch.arange(100))
    assert len(index(data, "forget")) + len(index(data, "retain")) == 300
    data.saved_split(everything_trained=True).save(tmp_path / "split.json")
    later = make_data(unseen=None)
    later.use_split_of(tmp_path / "model.ckpt")
    assert torch.equal(index(later, "unseen"), unseen)
    # A split that carved some out does not change what was asked for.
    make_data(unseen=30).saved_split(everything_trained=True).save(tmp_path / "split.json")
    data.use_split_of(tmp_path / "model.ckpt")
    assert torch.equal(index(data, "test"), test)
    assert len(index(data, "retain")) + len(index(data, "forget")) == 270


def test_a_stage_that_trained_on_half_of_the_test_set_is_written_down(make_data, tmp_path):
    make_data(unseen=30).saved_split(everything_trained=True).save(tmp_path / "split.json")
    data = make_data(unseen="half_of_test")
    data.use_split_of(tmp_path / "model.ckpt")
    half, carved = keys(data, "unseen"), keys(make_data(unseen=30), "unseen")
    saved = data.saved_split(unseen_trained=True)
    assert set(saved.outside) == {f"test/{key}" for key in half}
    assert set(saved.unseen) == carved
    assert not carved & set(saved.retain)
    # What was trained on is no test sample from then on, however the set is cut.
    saved.save(tmp_path / "split.json")
    for later in (make_data(unseen=30), make_data(unseen=None)):
        later.use_split_of(tmp_path / "model.ckpt", forgotten_is_removed=False)
        assert not half & keys(later, "test")
        assert len(keys(later, "test")) == 50


def test_another_word_for_unseen_is_refused(make_data):
    with pytest.raises(ConfigError, match="unseen is 'half'"):
        make_data(unseen="half")


def test_a_request_that_names_unseen_samples(make_data, tmp_path):
    data = make_data()
    never, trained = sorted(keys(data, "unseen"))[:2], sorted(keys(data, "retain"))[:3]
    request = make_data(forget=listed(tmp_path, [*never, *trained]))
    assert keys(request, "forget") == set(trained)
    assert sorted(request.parts.never_trained) == never
    with pytest.raises(DataError, match="never trained on any of them"):
        index(make_data(forget=listed(tmp_path, never)), "forget")


def test_trained_on_counts_forgotten_samples_that_a_reference_saw(make_data, tmp_path):
    data = make_data()
    assert trained_on(data, tmp_path / "reference.ckpt") == 0  # nothing is known
    data.saved_split().save(tmp_path / "split.json")
    assert trained_on(data, tmp_path / "reference.ckpt") == 0
    data.saved_split(everything_trained=True).save(tmp_path / "split.json")
    assert trained_on(data, tmp_path / "reference.ckpt") == 27


def test_exact_copies_are_found(digits, make_data):
    images = digits.train.images.clone()
    images[200] = images[5]
    samples = replace(digits.train, images=images, keys=content_keys(images))
    dataset = VisionData("digits", samples, digits.test, digits.classes, digits.mean, digits.std)
    data = make_data(dataset, unseen=0)
    for seed in range(100):
        data.draw(forget_seed=seed)
        forget = index(data, "forget").tolist()
        if (5 in forget) != (200 in forget):
            break
    pair = [samples.keys[5], samples.keys[200]]
    assert data.copies == [tuple(pair if 5 in forget else pair[::-1])]


def test_noisy_labels_are_served_and_the_fingerprint_tells_them_apart(make_data):
    noisy = make_data(label_noise=LabelNoise(0.5))
    assert noisy.fingerprint("train") != make_data().fingerprint("train")
    batch = next(iter(noisy.evaluation_loader("retain")))
    assert torch.equal(batch.target, noisy.samples.targets[batch.index])
    assert (batch.target != noisy.dataset.train.targets[batch.index]).float().mean() > 0.3


@pytest.mark.parametrize("view", ["forget", "both", "both_equal", "forget_then_retain"])
def test_views_with_forgotten_samples_need_a_rule(view, make_data):
    with pytest.raises(DataError, match="there is no forget rule"):
        make_data(forget=None, view=view).train_dataloader()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"forget_batch_size": -1}, "forget_batch_size is -1"),
        ({"unseen": -0.1}, "unseen is -0.1"),
    ],
)
def test_arguments_are_checked(arguments, message, digits):
    with pytest.raises(ConfigError, match=message):
        UnlearningDataModule(digits, **arguments)


def test_unseen_may_not_be_everything(make_data):
    with pytest.raises(DataError, match="unseen is 300 of 300"):
        index(make_data(unseen=300), "retain")


def test_serve_returns_what_was_served(make_data):
    data = make_data()
    before = data.serving
    assert data.serve("both", batch_size=8, forget_batch_size=4, salt="x") == before
    assert (data.serving.view, data.serving.batch_size, data.serving.forget_batch_size) == ("both", 8, 4)
    data.skip_images()
    assert not data.serving.images
    data.serving = before
    assert len(data.train_dataloader()) == 9


def test_what_a_configuration_links_to(make_data):
    data = make_data(forget=RandomCount(3))
    assert (data.num_classes, data.in_chans, data.image_size, data.batch_size) == (10, 1, 8, 32)
    assert data.example(3).shape == (3, 1, 8, 8)
    assert len(index(data, "forget")) == 3


def test_copies_do_not_carry_the_images_twice(make_data):
    data = make_data()
    data.evaluation_loader("retain")
    assert data._makers
    assert not copy.copy(data).__getstate__()["_makers"]


def test_the_order_follows_the_seed(make_data, monkeypatch):
    def first(data):
        return next(iter(data.train_dataloader())).index

    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    seeded = first(make_data())
    assert torch.equal(seeded, first(make_data(seed=5)))
    assert not torch.equal(seeded, first(make_data(seed=6)))
    assert isinstance(make_data().forget_rule, RandomFraction)


def test_a_draw_is_a_sorted_part_of_a_part(make_data):
    data = make_data()
    chosen = data.random_part("retain", 40, "a purpose")
    assert len(chosen) == 40
    assert torch.equal(chosen, chosen.unique())
    assert torch.isin(chosen, index(data, "retain")).all()
    assert torch.equal(chosen, make_data().random_part("retain", 40, "a purpose"))
    others = data.random_part("retain", 40, "another"), data.random_part("retain", 40, "a purpose", seed=1)
    assert not any(torch.equal(chosen, other) for other in others)
    # The first of a longer draw.
    assert torch.isin(chosen, data.random_part("retain", 50, "a purpose")).all()
    for count in (None, 10_000):
        assert torch.equal(data.random_part("retain", count, "a purpose"), index(data, "retain"))


def test_a_draw_is_served_each_sample_once(make_data):
    data = make_data()
    chosen = data.random_part("train", 25, "a purpose")
    batches = list(data.evaluation_loader("train", chosen, 10))
    assert [len(batch.index) for batch in batches] == [10, 10, 5]
    assert torch.equal(torch.cat([batch.index for batch in batches]), chosen)


def test_train_is_retain_and_forget(make_data):
    data = make_data()
    both = torch.cat([index(data, "retain"), index(data, "forget")]).sort().values
    assert torch.equal(index(data, "train"), both)
    assert "train" not in data.present


def test_whole_classes_have_no_retained_samples(make_data):
    assert make_data(forget=WholeClasses([1, 4])).forgets_whole_classes
    assert not make_data(forget=RandomFraction(0.3)).forgets_whole_classes
    assert not make_data(forget=None).forgets_whole_classes


def test_unseen_samples_that_a_stage_trains_on_are_retained_from_then_on(make_data, tmp_path):
    data = make_data()
    data.saved_split(unseen_trained=True).save(tmp_path / "split.json")
    used = sorted(keys(data, "unseen"))
    later = make_data(forget=listed(tmp_path, used[:3]))
    later.use_split_of(tmp_path / "unlearned.ckpt")
    assert keys(later, "forget") == set(used[:3])
    assert later.parts.never_trained == []
    assert not keys(later, "unseen") & set(used)
    assert kept_keys(tmp_path / "unlearned.ckpt").keys >= set(used)


def test_what_stood_for_unseen_and_was_trained_on_is_unseen_no_more(digits, make_data, tmp_path):
    data = make_data()
    data.use_split_of(tmp_path / "foreign.ckpt")  # half of the test set stands for unseen samples
    data.saved_split(unseen_trained=True).save(tmp_path / "split.json")
    test = index(data, "test")
    for unseen in (None, VisionData("other", digits.test, digits.train, digits.classes, digits.mean, digits.std)):
        later = make_data(unseen=unseen)
        later.use_split_of(tmp_path / "unlearned.ckpt")
        assert not keys(later, "unseen") & keys(data, "unseen")
        assert len(index(later, "unseen")) == (0 if unseen is None else 50)
        assert later.saved_split().outside == data.saved_split(unseen_trained=True).outside
        assert unseen is not None or torch.equal(index(later, "test"), test)


def test_the_fingerprint_sees_pixels_behind_keys_that_only_look_like_hashes(digits, make_data):
    prints = []
    for images in (digits.train.images, 255 - digits.train.images):
        train = Samples(images, digits.train.targets, [f"{i:016x}" for i in range(len(images))])
        data = make_data(VisionData("digits", train, digits.test, digits.classes, digits.mean, digits.std))
        prints.append([data.fingerprint(part) for part in ("train", "forget", "unseen")])
    assert all(first != second for first, second in zip(*prints, strict=True))
    # Real ones stand for the pixels, so that no image is hashed again.
    assert digits.train.by_content
    data = make_data()
    data.fingerprint("train")
    assert "stamps" not in data.samples.__dict__


def test_a_path_means_a_file_of_its_own_set(digits, make_data, tmp_path):
    """Two sets of files have equal relative names; what a stage trained on is of one of them."""

    def by_path(samples):
        return replace(samples, keys=[f"{i}.png" for i in range(len(samples))], by_content=False)

    train, test = by_path(digits.train), by_path(digits.test)
    dataset = VisionData("photos", train, test, digits.classes, digits.mean, digits.std)
    other = VisionData("other", by_path(digits.test), test, digits.classes, digits.mean, digits.std)
    data = make_data(dataset, unseen=other)
    data.saved_split(unseen_trained=True).save(tmp_path / "split.json")
    later = make_data(dataset, unseen=other, forget=None)
    later.use_split_of(tmp_path / "model.ckpt")
    assert len(index(later, "test")) == len(digits.test)
    assert len(index(later, "unseen")) == 0


def test_classes_of_what_is_unseen_are_those_of_the_data(digits, make_data):
    swapped = VisionData("other", digits.test, digits.train, digits.classes[::-1], digits.mean, digits.std)
    numbered = VisionData("other", digits.test, digits.train, [str(i) for i in range(10)], digits.mean, digits.std)
    named = VisionData("named", digits.train, digits.test, [f"digit {i}" for i in range(10)], digits.mean, digits.std)
    assert make_data(named, unseen=numbered).unseen is numbered  # labels without names
    swapped.classes = [f"digit {i}" for i in range(10)][::-1]
    with pytest.raises(DataError, match=r"The classes of unseen are .*; needed: the same, in the same order"):
        make_data(named, unseen=swapped)
