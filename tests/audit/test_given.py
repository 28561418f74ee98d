"""Lists of models of a user's own: what they were made of is compared with what the audit is about."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from helpers import untrained

from lightning_unlearn.audit import given
from lightning_unlearn.audit.given import checkpoints
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.report.ledger_schema import PastRequest
from lightning_unlearn.report.schema import Report, Row
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.weights.checkpoint import save_weights


@pytest.fixture
def lists(tmp_path, make_data):
    """Writes models of every kind with their splits, unlearned ones of these draws of the forget rule; patterns by kind."""

    def write(draws=(0, 0, 0), originals="train", **kwargs):
        made = {}
        for kind in ("unlearned", "references", "originals"):
            for i, draw in enumerate(draws):
                data = make_data(forget=RandomFraction(0.1), forget_seed=draw if kind == "unlearned" else 0, **kwargs)
                torch.manual_seed(100 * len(made) + i)
                folder = tmp_path / kind / str(i)
                save_weights(folder / "last.ckpt", untrained().state_dict(), {})
                data.saved_split(everything_trained=kind == "originals" and originals == "train").save(folder / "split.json")
            made[kind] = [str(tmp_path / kind / "*" / "last.ckpt")]
        return made

    return write


@pytest.fixture
def report_on(make_data, make_trainer):
    def run(lists, **kwargs):
        data = make_data(forget=kwargs.pop("forget", None), **kwargs)
        return make_trainer().evaluate(untrained(), data, tier="audit", relearn_epochs=0, **lists)

    return run


def test_a_path_that_exists_is_no_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b[1]/a.ckpt", "b1/a.ckpt", "b1/c.ckpt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert checkpoints("unlearned", ["b[1]/a.ckpt"], 1) == ["b[1]/a.ckpt"]
    assert checkpoints("unlearned", ["b[1]/?.ckpt"], 1) == ["b1/a.ckpt", "b1/c.ckpt"]


def test_hundreds_of_paths_are_resolved_once_each(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{i}.ckpt") for i in range(50)]
    calls, resolve = [], Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda path: calls.append(path) or resolve(path))
    assert checkpoints("unlearned", paths) == paths
    assert len(calls) == 50
    with pytest.raises(ConfigError, match=r"names .*[03]/\.\./7.ckpt twice"):
        checkpoints("unlearned", [*paths, str(tmp_path / "3/../7.ckpt")])


def test_the_splits_of_many_models_are_not_held_together(make_data, monkeypatch):
    data = make_data()
    splits, held = [], []

    def resolved(path, data):
        held.append(sum(split() is not None for split in splits))
        split = data.saved_split()
        splits.append(weakref.ref(split))
        return split

    monkeypatch.setattr(given, "_resolved_split", resolved)
    given._check_unlearned([f"{i}.ckpt" for i in range(8)], data)
    assert len(held) == 8
    assert max(held) <= 1


@pytest.fixture
def audit(report_on):
    return lambda lists, **kwargs: report_on(lists, **kwargs).audits[0]


def test_references_of_unknown_or_other_training_are_doubted(lists, report_on, tmp_path):
    given = lists()
    assert not any("reference" in warning for warning in report_on(given).warnings)
    for i in range(2):
        (tmp_path / "references" / str(i) / "split.json").unlink()
    path = tmp_path / "references/2/split.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"retain": saved["retain"][5:]}))
    unknown, other = (warning for warning in report_on(given).warnings if "reference" in warning)
    assert unknown.startswith(f"Nothing says what {tmp_path}/references/0/last.ckpt was trained on")
    assert unknown.endswith("That is so of 2 of 3 references.")
    assert "references/2/last.ckpt was trained on 238 of the 243 retained samples and on 0 others" in other


def test_models_that_forgot_the_same_are_audited_and_no_note_speaks_of_shadows(lists, audit):
    given = lists()
    for rule in (None, RandomFraction(0.1)):
        notes = " ".join(audit(given, forget=rule).notes)
        assert "U-LiRA here is against retrained references" in notes
        assert "U-LiRA, refs: against references that unlearned nothing. It leaves one out." in notes
        assert "held-out references that went through the same unlearning" not in notes


@pytest.mark.parametrize("count", [3, 6])
def test_a_zero_of_halves_is_not_called_a_level_of_all(lists, audit, count):
    note = audit(lists(draws=(0,) * count)).notes[-1]
    assert note.startswith("No held-out references were given: ")
    assert note.endswith("hardest and most memorised samples were not looked for.")
    assert ("compare a line with its own figures of permuted models" in note) == (count == 6)


def test_models_that_forgot_others_are_refused(lists, audit):
    with pytest.raises(CheckpointError, match=r"unlearned/1/last.ckpt forgot \d+ of the 27 samples that this audit is about"):
        audit(lists(draws=(0, 1, 2)))


def test_so_are_models_of_another_training_set(lists, audit, tmp_path):
    given = lists()
    path = tmp_path / "unlearned/2/split.json"
    saved = json.loads(path.read_text())
    saved["retain"] = saved["retain"][5:]
    path.write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match=r"2/last.ckpt and .*0/last.ckpt retained 238 samples in common, 0 that only the"):
        audit(given)
    # More was forgotten than this audit is about, and not by all of them.
    saved["retain"], saved["forget"] = saved["retain"][5:], [*saved["forget"], *saved["retain"][:5]]
    path.write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match=r"2/last.ckpt and .*0/last.ckpt forgot 27 samples in common, 5 that only"):
        audit(given)


def test_originals_were_trained_on_what_was_forgotten(lists, audit):
    with pytest.raises(CheckpointError, match=r"originals/0/last.ckpt is no original .* not trained on 27 of their 270"):
        audit(lists(originals="retain"))


def test_without_splits_all_is_taken_on_trust(lists, audit, tmp_path):
    given = lists(draws=(0, 1, 2))
    for path in tmp_path.glob("*/*/split.json"):
        path.unlink()
    assert audit(given, forget=RandomFraction(0.1)).lines


@pytest.mark.parametrize("kind", ["unlearned", "references", "originals"])
def test_all_models_were_trained_on_the_input_that_they_are_given(kind, lists, audit, tmp_path):
    given = lists()
    path = tmp_path / kind / "1/split.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"mean": [0.9]}))
    with pytest.raises(
        CheckpointError, match=rf"{kind}/1/last.ckpt was trained with mean \[0.9\] .* would be given the input of"
    ):
        audit(given)


def test_what_the_runs_say_of_their_models_is_kept(lists, audit, tmp_path):
    given = lists()
    for i in range(3):
        folder = tmp_path / "unlearned" / str(i)
        row = Row("sisa", "method", "r", 0, {}, exact=True, cautions=["Aimed at on purpose."])
        past = PastRequest(1, "", "", 27, "sisa", "", "", hash_of_file(folder / "last.ckpt"), "")
        save_report(Report("unlearn", "", "", "untrain", "screen", rows=[row], history=[past]), folder)
    (line,) = [line for line in audit(given).of() if line.role == "method"]
    assert (line.verdict, line.notes) == ("exact by construction", ["Aimed at on purpose."])
