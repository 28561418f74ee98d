"""What makes figures worth little is said, and only then."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import sgd, untrained

from lightning_unlearn.cautions import (
    fallen_since,
    loss_of_retained,
    of_copies,
    of_ensemble,
    of_labels,
    of_original,
    of_originals,
    of_reference,
    of_relearning,
    of_request,
    of_split,
)
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import ListedSamples
from lightning_unlearn.data.noise import LabelNoise
from lightning_unlearn.data.split import copies_among
from lightning_unlearn.data.trigger import Trigger
from lightning_unlearn.data.vision import Samples, VisionData, content_keys
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.loading import load_references
from lightning_unlearn.sisa import Sisa
from lightning_unlearn.stages import FineTune, NormDecay, Retrain, RetrainShards
from lightning_unlearn.weights.checkpoint import save_weights


def saved(folder, model, split=None):
    save_weights(folder / "model.ckpt", model.state_dict(), {})
    if split is not None:
        split.save(folder / "split.json")
    return str(folder / "model.ckpt")


@pytest.mark.parametrize(
    ("retain", "unseen", "message"),
    [
        (9.8, 10.2, "is right on 9.8 % of the retained samples.*grey 8x8, minus mean 0.3"),
        (75.0, 74.0, "no better than unseen ones"),
        (75.0, 70.0, None),
        (99.0, 99.0, None),
        (99.0, None, None),
    ],
)
def test_an_original_that_does_not_know_its_data(make_data, retain, unseen, message):
    metrics = {"retain/acc": retain} | ({} if unseen is None else {"unseen/acc": unseen})
    found = of_original(metrics, make_data())
    assert len(found) == (message is not None)
    if message is not None:
        assert re.search(message, found[0])


def test_unseen_samples_that_may_have_been_trained_on(make_data, tmp_path, fresh):
    data = make_data(unseen=30)
    data.use_split_of(None)
    assert of_split(data) == []
    data.use_split_of(tmp_path / "foreign.ckpt")
    assert "unseen is 30 and no split.json" in of_split(data)[0]
    assert of_split(data)[0] in new_report("evaluate", Panel(fresh, data, "untrain", request_of(data))).warnings
    data.saved_split().save(tmp_path / "split.json")
    data.use_split_of(tmp_path / "ours.ckpt", forgotten_is_removed=False)
    assert of_split(data) == []
    for unseen in (None, 0):
        data = make_data(unseen=unseen)
        data.use_split_of(tmp_path / "elsewhere" / "foreign.ckpt")
        assert of_split(data) == []


def test_references_that_are_none(make_data, tmp_path, trained):
    data = make_data()
    twin = saved(tmp_path / "twin", trained)
    with pytest.raises(CheckpointError, match="holds the weights of the model itself"):
        load_references(trained, [twin], data)
    with pytest.raises(CheckpointError, match="holds the weights of the original"):
        load_references(untrained(), [twin], data, trained)
    other = saved(tmp_path / "other", untrained(), data.saved_split())
    with pytest.raises(CheckpointError, match=f"holds the weights of {other}"):
        load_references(trained, [other, other], data)
    references, cautions = load_references(trained, [other], data)
    assert len(references) == 1
    assert cautions == []


def test_references_of_unknown_or_other_training_sets(make_data, tmp_path, trained):
    data = make_data(unseen=0)
    path = saved(tmp_path / "known", trained, make_data(unseen=0).saved_split())
    assert of_reference(path, data) == []
    assert "Nothing says what" in of_reference(saved(tmp_path / "unknown", trained), data)[0]
    less = make_data(unseen=30)
    path = saved(tmp_path / "less", trained, less.saved_split())
    kept = len(set(less.saved_split().retain) & set(data.saved_split().retain))
    assert f"was trained on {kept} of the 270 retained samples" in of_reference(path, data)[0]


def test_thresholds():
    assert loss_of_retained(0.99, 0.95) == []
    assert "fell by 6.0 points, from 99.0 to 93.0 %" in loss_of_retained(0.99, 0.93)[0]
    assert of_relearning(0.99, 0.95) == []
    assert "by 9.0 points, to 90.0 %" in of_relearning(0.99, 0.90)[0]


def test_a_wrecked_model_and_a_useless_relearning_are_noted(trained, make_data, make_trainer, monkeypatch):
    # A rate that suits no network: the accuracy falls, the loss stays finite.
    wrecks = partial(torch.optim.SGD, lr=1.0)
    monkeypatch.setattr("lightning_unlearn.evaluation.collecting._relearning_optimizer", wrecks)
    report = make_trainer().unlearn(trained, make_data(), [NormDecay(0.01)], relearn_epochs=1)
    method = next(row for row in report.rows if row.role == "method")
    assert any("Retain accuracy fell by" in note for note in method.notes)
    assert any("the relearn figures say nothing" in note for note in method.notes)


def test_another_normalisation_is_noticed_before_the_method_runs(trained, make_trainer, make_data, caplog):
    wrong = Digits(test_size=100, train_size=300, mean=-3.0, std=0.1)
    report = make_trainer().unlearn(trained, make_data(wrong), [FineTune(max_epochs=1, optimizer=sgd(1e-4))], relearn_epochs=0)
    assert "of the retained samples, which it was trained on" in report.warnings[0]
    assert report.warnings[0] in caplog.text


def test_an_ensemble_of_shards_may_know_nothing_by_heart(make_data):
    model = Sisa("MLP", in_chans=1, image_size=8, shards=3)
    assert of_original({"retain/acc": 70.6, "unseen/acc": 70.0}, make_data(), model) == []
    [low] = of_original({"retain/acc": 40.0, "unseen/acc": 40.0}, make_data(), model)
    assert "Each of its 3 members was trained on one shard alone" in low
    assert "an input of another size, or normalised otherwise, than in training" in low


def test_originals_that_a_comparison_trained_were_not_loaded(make_data):
    known = [("random, seed 0", {"retain/acc": 40.0}), ("random, seed 1", {"retain/acc": 99.0})]
    [said] = of_originals(known, make_data())
    assert said.startswith("random, seed 0: The original is right on 40.0 % of the retained samples")
    assert "too few epochs or a learning rate that does not fit. That is so of 1 of 2 originals." in said
    assert "not loaded" not in said
    shards = Sisa("MLP", in_chans=1, image_size=8, shards=3)
    assert of_originals([("random", {"retain/acc": 70.0, "unseen/acc": 69.0})], make_data(), shards) == []


def test_other_methods_on_an_ensemble_of_shards():
    model = Sisa("MLP", in_chans=1, image_size=8)
    assert of_ensemble(model, [RetrainShards()]) == []
    assert of_ensemble(untrained(), [FineTune()]) == []
    assert (
        "NormDecay and FineTune changes all its members at once: the result is not"
        in of_ensemble(model, [NormDecay(factor=0.5), FineTune()])[0]
    )
    assert "at once: since no slices" in of_ensemble(model, [Retrain()])[0]


def test_labels_and_triggers_that_the_model_did_not_learn(make_data, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    noise, trigger = LabelNoise(0.2), Trigger(0.1)
    make_data(label_noise=noise).saved_split().save(tmp_path / "split.json")
    for altered, now in (
        ({"label_noise": noise}, None),
        ({"label_noise": noise, "trigger": trigger}, "Trigger"),
        ({}, "neither"),
    ):
        data = make_data(**altered)
        data.use_split_of(checkpoint)
        found = of_split(data)
        assert bool(found) == (now is not None)
        assert all("was trained with LabelNoise(fraction=0.2" in line and f"{now}" in line for line in found)
        # The unlearned model has learnt what the original has.
        assert data.saved_split().altered == repr(noise)
    split = json.loads((tmp_path / "split.json").read_text())
    del split["altered"]
    (tmp_path / "split.json").write_text(json.dumps(split))
    data = make_data(trigger=trigger)
    data.use_split_of(checkpoint)
    assert of_split(data) == []
    (tmp_path / "split.json").write_text(json.dumps({**split, "altered": 3}))
    with pytest.raises(CheckpointError, match="'altered' is no text"):
        data.use_split_of(checkpoint)


def test_whose_labels_accuracies_count_as_right(make_data, digits):
    noisy = make_data(label_noise=LabelNoise(0.5))
    samples, index = noisy.part("unseen")
    wrong = int((samples.targets[index] != samples.true_targets[index]).sum())
    for repair in (True, False):
        assert of_labels(noisy, repair)[0].startswith(
            f"{wrong} of the {len(index)} unseen samples have wrong labels, as training"
        )
    assert of_labels(make_data(), repair=False) == []
    assert of_labels(make_data(), repair=True)[0].endswith(
        "right; those of unseen samples may be as wrong as those trained on."
    )
    # Clean unseen samples, although others were poisoned.
    assert of_labels(make_data(trigger=Trigger(0.1)), repair=False) == []


@pytest.mark.parametrize(("now", "fell"), [((94.0, 80.0), False), ((92.9, 80.0), True), ((98.0, 74.9), True)])
def test_what_falls_little_by_little_is_seen(now, fell):
    first = {"retain/acc": 98.0, "test/acc": 80.0, "forget/acc": 98.0}
    text, warn = fallen_since(first, {"retain/acc": now[0], "test/acc": now[1], "forget/acc": 0.0}, 3)
    assert warn == fell
    assert text.startswith(f"Since the first original, 3 requests ago, retain accuracy went from 98.0 to {now[0]} % (")
    assert "forget" not in text
    assert fallen_since({}, first, 2) == ("", False)


def test_copies_of_trained_samples_among_unseen_ones_are_counted(digits, trained, make_trainer, make_data, caplog):
    assert of_copies(make_data()) == []
    twice = torch.cat([digits.train.images] * 2)
    train = Samples(twice, digits.train.targets.repeat(2), content_keys(twice), by_content=True)
    test = replace(digits.test, images=digits.test.images.clone())
    test.images[:3] = digits.train.images[:3]
    data = make_data(VisionData("twice", train, test, digits.classes, digits.mean, digits.std))
    samples, unseen = data.part("unseen")
    known = {samples.images[i].numpy().tobytes() for i in data.part("train")[1].tolist()}
    copies = sum(samples.images[i].numpy().tobytes() in known for i in unseen.tolist())
    assert copies > 50
    report = make_trainer().unlearn(trained, data, [FineTune(max_epochs=1)], relearn_epochs=0)
    said = f"{copies} of the 60 unseen samples and 3 of the 100 test samples have exactly the pixels of one that"
    assert sum(said in warning for warning in report.warnings) == 1
    assert sum(said in record.message for record in caplog.records) == 1


def test_copies_are_not_looked_for_among_many_files(digits, make_data):
    """Nor is a handful worth a word: it moves no figure."""
    few = digits.test.images.clone()
    few[0] = digits.train.images[0]
    data = make_data(VisionData("few", digits.train, replace(digits.test, images=few), digits.classes, digits.mean, digits.std))
    assert copies_among(data.part("train"), [data.part("test")]) == [1]
    assert of_copies(data) == []

    class Read:
        def __len__(self):
            return 6000

        def __getitem__(self, index):
            raise AssertionError("an image was read")

    many = Samples(Read(), torch.arange(6000) % 10, [str(i) for i in range(6000)])
    assert copies_among((many, torch.arange(5000)), [(many, torch.arange(5000, 6000)), data.part("test")]) is None
    large = make_data(VisionData("many", many, replace(digits.test, images=few), digits.classes, digits.mean, digits.std))
    assert of_copies(large)[0].startswith("Exact copies of trained samples among unseen and test ones were not searched for")
    assert request_of(large).copies_left is None
    assert request_of(data).copies_left == 0


def test_only_unseen_samples_of_a_request_are_said_to_be_withdrawn(make_data, tmp_path):
    split = make_data().saved_split(everything_trained=True)
    *retain, came, known = split.retain
    # One that came after the training is in no part.
    replace(split, retain=[*retain, known]).save(tmp_path / "split.json")
    (tmp_path / "list.txt").write_text("\n".join([*split.unseen[:2], came, known]))
    data = make_data(forget=ListedSamples(tmp_path / "list.txt"))
    data.use_split_of(tmp_path / "model.ckpt")
    assert of_request(data) == [
        "2 samples of the request were never trained on and are not counted as forgotten, but withdrawn: in no part of the "
        "data from this run on.",
        "1 sample of the request was never trained on and is not counted.",
    ]
    said = of_request(data)
    data.saved_split().save(tmp_path / "split.json")
    # The run itself is judged, and then the same is asked for again.
    data.use_split_of(tmp_path / "unlearned.ckpt", forgotten_is_removed=False)
    assert of_request(data) == said
    (tmp_path / "list.txt").write_text("\n".join([*split.unseen[:2], came, retain[0]]))
    data.use_split_of(tmp_path / "unlearned.ckpt")
    assert of_request(data) == [said[1], "2 samples of the request were forgotten or withdrawn before and are not counted."]
