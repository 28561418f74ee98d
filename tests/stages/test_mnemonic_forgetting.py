"""One-shot forgetting with mnemonic codes: its formula, its work, its errors, and that it needs no data."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd, untrained
from lightning.pytorch import seed_everything

from lightning_unlearn.callbacks.mnemonic_codes import MnemonicCodes
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.forget import RandomFraction, WholeClasses
from lightning_unlearn.data.forgotten_classes import resolve_classes
from lightning_unlearn.data.no_data import NoData
from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.exceptions import ChainError, CheckpointError, DataError
from lightning_unlearn.stages import FineTune, FisherNoise, MnemonicForgetting
from lightning_unlearn.training import fit_quietly
from lightning_unlearn.weights.checkpoint import read_saved, save_weights
from lightning_unlearn.weights.mnemonic import Codes, codes_of, draw_codes, give_codes, judge_step

REPOSITORY = Path(__file__).parents[2]
THREE = WholeClasses([3])


@pytest.fixture(scope="module")
def _with_codes():
    data = UnlearningDataModule(Digits(train_size=600), THREE, batch_size=32, num_workers=0, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        seed_everything(0, verbose=False)
        model = untrained()
        model.optimizer = sgd(0.05, momentum=0.9)
        fit_quietly(model, data, "train", 12, {"accelerator": "cpu"}, [MnemonicCodes(0.2)])
    return model.cpu().eval()


@pytest.fixture
def with_codes(_with_codes):
    """A copy of a SmallCNN that was trained on digits and codes."""
    return copy.deepcopy(_with_codes)


def by_hand(model, codes, classes, lambda1, lambda2):
    """The step of every tensor: a plain loop over codes and entries, float64."""
    squares = {}
    for part in (True, False):
        rows = [i for i, label in enumerate(codes.labels.tolist()) if (label in classes) == part]
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for i in rows:
            model.zero_grad()
            F.cross_entropy(model(codes.images[i : i + 1].double()), codes.labels[i : i + 1]).backward()
            for name, p in model.named_parameters():
                total[name] += p.grad**2 / len(rows)
        squares[part] = {name: (value + 1e-16).flatten().tolist() for name, value in total.items()}
    model.zero_grad()
    steps = {}
    for name, p in model.named_parameters():
        ratio = [f / r for f, r in zip(squares[True][name], squares[False][name], strict=True)]
        scale = min(lambda1, lambda2 / max(ratio))
        steps[name] = torch.tensor([scale * n for n in ratio], dtype=torch.float64).view(p.shape)
    return steps


@pytest.mark.parametrize(("perturbation", "sign"), [("plus", 1), ("minus", -1)])
@pytest.mark.parametrize("classes", [[3], [1, 4, 8]])
def test_the_step_against_a_plain_loop_in_float64(perturbation, sign, classes, with_codes, make_data, make_trainer):
    model = with_codes.double()
    steps = by_hand(model, codes_of(model), classes, 1e-3, 10.0)
    expected = {name: p.detach() + sign * steps[name] for name, p in model.named_parameters()}
    stage = MnemonicForgetting(perturbation=perturbation)
    [result] = run_chain(make_trainer(precision="64-true").fresh, model, make_data(forget=WholeClasses(classes)), [stage])
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-6, atol=1e-10)
    assert result.summary["kept"] == {"sign": sign}


def test_the_better_direction_is_kept_and_the_class_is_forgotten(with_codes, make_data, fresh):
    data, outcomes = make_data(forget=THREE), {}
    for perturbation in ("best", "plus", "minus"):
        model = copy.deepcopy(with_codes)
        # Ten times the published step: the published one does not always reach the class on digits.
        stage = MnemonicForgetting(perturbation=perturbation, lambda1=1e-2, lambda2=100.0)
        [result] = run_chain(fresh, model, data, [stage])
        outcomes[perturbation] = (model.state_dict(), result)
    tried = {s: outcomes[n][1].summary[f"sign {s:+d}"] for s, n in ((1, "plus"), (-1, "minus"))}
    assert tried[1] == outcomes["best"][1].summary["sign +1"]
    assert tried[-1] == outcomes["best"][1].summary["sign -1"]
    sign = max((1, -1), key=lambda s: 1 - tried[s]["forget"] + tried[s]["retain"])
    other = outcomes["plus" if sign == 1 else "minus"][0]
    assert all(torch.equal(value, other[name]) for name, value in outcomes["best"][0].items())
    assert tried[sign]["forget"] == 0
    codes = codes_of(with_codes)
    model.load_state_dict(outcomes["best"][0])
    assert not bool((model(codes.images).argmax(1) == codes.labels)[3])
    assert outcomes["best"][1].warning == ""
    assert outcomes["best"][1].note.startswith("MnemonicForgetting: of the codes that it looked at, 0 % of the forgotten")


def test_gaussian_noise_has_the_step_as_its_deviation(with_codes, make_data, make_trainer):
    model = with_codes.double()
    steps = by_hand(model, codes_of(model), [3], 1e-3, 10.0)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    run_chain(
        make_trainer(precision="64-true").fresh, model, make_data(forget=THREE), [MnemonicForgetting(perturbation="gaussian")]
    )
    # Smaller steps are lost in the rounding of the weight.
    found = [((p.detach() - start[name]) / steps[name])[steps[name] > 1e-12] for name, p in model.named_parameters()]
    drawn = torch.cat(found)
    assert len(drawn) > 1000
    assert abs(drawn.std() - 1) < 5 / (2 * len(drawn)) ** 0.5
    assert abs(drawn.mean()) < 5 / len(drawn) ** 0.5


def test_the_work_is_one_pass_per_code_and_the_trials(with_codes, make_data, fresh):
    [result] = run_chain(fresh, with_codes, make_data(forget=THREE), [MnemonicForgetting()])
    # Forward and backward on ten codes, and both candidates on them; an epoch on 10,000 images is 30,000.
    assert result.work == 10 * 3 + 2 * 10
    assert result.work <= 0.01 * 3 * 10_000


def test_real_samples_in_place_of_codes(trained, make_data, fresh):
    data = make_data(forget=THREE)
    start = copy.deepcopy(trained.state_dict())
    [result] = run_chain(fresh, trained, data, [MnemonicForgetting(source="data", samples=None)])
    known = {part: len(data.part(part)[1]) for part in ("forget", "retain")}
    kept = result.summary[f"sign {result.summary['kept']['sign']:+.0f}"]
    trained.eval()
    for part, n in known.items():
        right = sum(int((trained(b.input).argmax(1) == b.target).sum()) for b in data.evaluation_loader(part))
        assert kept[part] == pytest.approx(right / n)
    assert any(not torch.equal(value, start[name]) for name, value in trained.state_dict().items())


def test_what_cannot_be_done_is_refused_before_anything_runs(with_codes, trained, make_data, make_trainer):
    before = copy.deepcopy(with_codes.state_dict())
    chain = [FineTune(), MnemonicForgetting()]
    trainer = make_trainer()
    with pytest.raises(ChainError, match=r"forgets whole classes, and what is to be forgotten is not: random 10 %"):
        trainer.unlearn(with_codes, make_data(forget=RandomFraction(0.1)), chain)
    with pytest.raises(CheckpointError, match=r"no mnemonic codes.*fit \.\.\. -c trainer/mnemonic_codes"):
        trainer.unlearn(trained, make_data(forget=THREE), chain)
    give_codes(with_codes, codes_of(with_codes).without([3]))
    with pytest.raises(CheckpointError, match=r"none for the classes \[3\] \(forgotten earlier\?\)"):
        run_chain(trainer.fresh, with_codes, make_data(forget=THREE), chain)
    assert all(torch.equal(value, before[name]) for name, value in with_codes.state_dict().items())


@pytest.mark.parametrize(
    "arguments", [{"lambda1": 0}, {"lambda2": -1.0}, {"samples": 0}, {"perturbation": "up"}, {"source": "x"}]
)
def test_arguments_are_checked(arguments):
    with pytest.raises(ChainError, match="needed"):
        MnemonicForgetting(**arguments)


def test_codes_are_drawn_chosen_and_read_back():
    codes = draw_codes(4, (1, 2, 2), torch.Generator().manual_seed(0))
    assert codes.of([2, 0]).labels.tolist() == [0, 2]
    assert codes.without([2, 0]).labels.tolist() == [1, 3]
    assert torch.equal(Codes.from_state(codes.state_dict()).images, codes.images)
    assert Codes.from_state({"images": codes.images, "labels": codes.labels[:2]}) is None
    assert Codes.from_state(["nothing"]) is None


# Without data.


def test_nothing_can_be_read_where_there_are_no_data(trained, make_trainer, tmp_path):
    data = UnlearningDataModule(NoData(8, 1), THREE, num_workers=0)
    assert data.forgotten_classes == [3]
    for chain, words in (([FineTune()], r"trains on samples \(view 'retain'\)"), ([FisherNoise()], "no images to read")):
        with pytest.raises((ChainError, DataError), match=words):
            make_trainer().unlearn(trained, data, chain, output=str(tmp_path / "run"))
    with pytest.raises(DataError, match="no images to read"):
        make_trainer().evaluate(trained, data)
    with pytest.raises(DataError, match="no images to read"):
        data.train_dataloader()
    with pytest.raises(DataError, match="at least two classes"):
        NoData(8, 1, classes=1)


def test_samples_of_classes_are_found_where_the_data_are(digits):
    labels = digits.train.targets.tolist()
    by = {label: [k for k, y in zip(digits.train.keys, labels, strict=True) if y == label] for label in range(10)}
    unseen = by[3][:2] + by[4][:1]
    trained = [key for key in digits.train.keys if key not in unseen]
    found = resolve_classes(SavedSplit(["class:3"], trained, unseen, ["class:5"]), digits.train)
    assert set(found.forget) == {"class:3", *by[3][2:]}
    assert set(found.removed) == {"class:5", *by[5]}
    assert set(found.unseen) == set(unseen)
    assert set(found.retain) == set(trained) - set(by[3]) - set(by[5])
    plain = SavedSplit([], trained, unseen, [])
    assert resolve_classes(plain, digits.train) is plain


NO_DATA = """
import builtins, os, sys
from lightning_unlearn.data import datasets, vision
from lightning_unlearn.data.loaders import BatchMaker

def refuse(*args, **kwargs):
    raise AssertionError("data were read")

BatchMaker.read = refuse
datasets.Digits.__init__ = refuse
assert not os.path.exists("data")
from lightning_unlearn.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_process_without_access_to_data_forgets(with_codes, make_trainer, tmp_path):
    digits = UnlearningDataModule(Digits(), None, batch_size=32, num_workers=0)
    (tmp_path / "original").mkdir()
    save_weights(tmp_path / "original/last.ckpt", with_codes.state_dict(), {}, codes_of(with_codes))
    digits.saved_split(everything_trained=True).save(tmp_path / "original/split.json")
    model = "--model.network SmallCNN --model.network_args.widths [8,16] --model.network_args.hidden 32"
    data = "--data.dataset NoData --data.dataset.image_size 8 --data.dataset.channels 1 --data.forget WholeClasses"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LIGHTNING_UNLEARN", "PL_GLOBAL_SEED"))}
    environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def forget(label, checkpoint, output):
        call = f"unlearn {model} {data} --data.forget.classes [{label}] -c method/mnemonic --checkpoint {checkpoint}"
        command = [sys.executable, "-c", NO_DATA, *call.split(), "--output", output, "--trainer.accelerator", "cpu"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)

    done = forget(3, "original/last.ckpt", "first")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "No data were read" in done.stdout
    state, _, codes = read_saved(tmp_path / "first/unlearned.ckpt")
    assert codes.labels.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    # The same as where data are.
    known = copy.deepcopy(with_codes)
    run_chain(make_trainer().fresh, known, UnlearningDataModule(Digits(), THREE, num_workers=0), [MnemonicForgetting()])
    for name, value in known.state_dict().items():
        torch.testing.assert_close(state[name], value)
    assert json.loads((tmp_path / "first/split.json").read_text())["forget"] == ["class:3"]
    # Where data are again, the class counts as forgotten and reaches no loader.
    digits.use_split_of(tmp_path / "first/unlearned.ckpt")
    assert 3 not in set(digits.samples.targets[digits.part("train")[1]].tolist())
    digits.use_split_of(tmp_path / "first/unlearned.ckpt", forgotten_is_removed=False)
    assert digits.forgotten_classes == [3]
    # A second request goes on top; the first one's class stays forgotten.
    done = forget(5, "first/unlearned.ckpt", "second")
    assert done.returncode == 0, done.stderr[-3000:]
    split = json.loads((tmp_path / "second/split.json").read_text())
    assert (split["forget"], split["removed"]) == (["class:5"], ["class:3"])
    done = forget(3, "second/unlearned.ckpt", "third")
    assert done.returncode == 0
    assert "nothing to do: Nothing is left to forget: earlier requests have removed the class of this one." in done.stdout
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("step", "message"),
    [((1e-9, 1e-9), "what was to be forgotten is still recognised"), ((10.0, 1e6), "what was to stay is recognised no better")],
)
def test_a_step_that_failed_is_warned_of(step, message, with_codes, make_data, make_trainer):
    stage = MnemonicForgetting(lambda1=step[0], lambda2=step[1])
    report = make_trainer().unlearn(with_codes, make_data(forget=THREE), [stage], relearn_epochs=0)
    [warning] = [line for line in report.warnings if line.startswith("MnemonicForgetting failed by its own measure")]
    assert message in warning
    assert "of the codes that it looked at" in warning
    [note] = [note for note in report.rows[-1].notes if note.startswith("MnemonicForgetting")]
    assert note.endswith("A code is not its class: images of a class may be recognised where its code is not.")


def test_what_a_step_is_judged_by():
    assert judge_step("codes", 0.0, 0.9, 10)[1] == ""
    assert judge_step("data", 0.1, 0.2, 10) == (
        "MnemonicForgetting: of the data that it looked at, 10 % of the forgotten and 20 % of the retained ones are recognised "
        "after its step.",
        "",
    )
    both = judge_step("codes", 1 / 3, 0.1, 10)[1]
    assert "larger lambda1" in both
    assert "smaller lambda1" in both
