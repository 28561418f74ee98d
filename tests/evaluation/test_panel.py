import copy
import hashlib

import pytest
import torch
from helpers import untrained

from lightning_unlearn.cautions import of_statistics
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.as_trained import normalised_as
from lightning_unlearn.data.datasets import Digits
from lightning_unlearn.data.saved_split import SavedSplit
from lightning_unlearn.data.some_classes import SomeClasses
from lightning_unlearn.evaluation.new_report import machine, new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.report.schema import Report
from lightning_unlearn.stages import FineTune, NormDecay
from lightning_unlearn.training import fit_quietly


@pytest.fixture
def panel(make_data, fresh):
    data = make_data()
    return Panel(fresh, data, "untrain", request_of(data), relearn_epochs=1, retrain_epochs=4)


def test_rows_of_original_references_and_methods(panel, trained, fresh):
    references = []
    for seed in range(2):
        torch.manual_seed(seed)
        references.append(untrained())
        fit_quietly(references[-1], panel.data, "retain", 3, {"accelerator": "cpu"})
    rows = panel.add_references(references, [11, 12])
    assert [(r.role, r.seed) for r in rows] == [("reference", 11), ("reference", 12)]
    assert panel.levels()["gap/avg"] >= 0
    assert panel.add_original(trained).role == "original"
    unlearned = copy.deepcopy(trained)
    results = run_chain(fresh, unlearned, panel.data, [NormDecay(0.9), FineTune(max_epochs=2)])
    row = panel.score("decay", 3, unlearned, results, settings="factor 0.9")
    assert (row.method, row.seed, row.settings, row.request) == ("decay", 3, "factor 0.9", panel.request.name)
    # Two epochs at three passes per image, of four such epochs for retraining.
    assert row.metrics["cost/share"] == pytest.approx(0.5)
    assert row.metrics["time/unlearn_s"] == pytest.approx(sum(r.seconds for r in results))
    assert [s.share for s in row.stages] == pytest.approx([0, 0.5])
    assert {"gap/avg", "relearn/acc", "distance"} <= set(row.metrics)
    assert {"bins", "forget", "test", "unseen", "reference"} <= set(row.details["margins"])
    assert sum(row.details["margins"]["forget"]) == pytest.approx(1) or sum(row.details["margins"]["forget"]) == 27
    assert len(row.details["per_class"]) == 10


def test_accuracies_are_those_of_the_parts(panel, trained):
    row = panel.add_original(trained)
    for part in ("forget", "retain", "test", "unseen"):
        right = [trained(b.input).argmax(1) == b.target for b in panel.data.evaluation_loader(part)]
        assert row.metrics[f"{part}/acc"] == pytest.approx(100 * float(torch.cat(right).float().mean()))


def test_the_distance_is_relative_to_the_weights_before(panel, trained):
    panel.add_original(trained)
    same = panel.score("nothing", 0, trained)
    assert same.metrics["distance"] == 0
    with torch.no_grad():
        trained.network.fc.weight.mul_(1.5)
    layers = panel.score("more", 0, trained).details["layers"]
    assert layers["network.fc.weight"] == pytest.approx(0.5)
    assert layers["network.features.0.weight"] == 0


def test_a_request_names_no_sample(make_data):
    data = make_data()
    request = request_of(data)
    samples, index = data.part("forget")
    keys = sorted(samples.keys[i] for i in index.tolist())
    assert (request.count, request.of) == (27, 270)
    assert request.digest == hashlib.sha256("\n".join(keys).encode()).hexdigest()
    assert not any(key in str(request) for key in keys)


def test_one_reference_has_no_level(panel, trained):
    panel.add_references([trained], [0])
    assert panel.levels() == {}


def test_a_report_says_what_is_not_known(make_data, fresh, tmp_path):
    data = make_data()
    data.use_split_of(tmp_path / "foreign.ckpt")
    report = new_report("evaluate", Panel(fresh, data, "untrain", request_of(data)), "A title")
    assert isinstance(report, Report)
    assert report.title == "A title"
    assert "two disjoint halves" in report.warnings[0]
    assert machine()


@pytest.mark.parametrize(
    ("given", "exact", "measured"), [({}, True, "mean and std"), ({"mean": 0.3}, True, "std"), ({}, False, None),
                                     ({"mean": 0.3, "std": 0.4}, True, None)]
)  # fmt: skip
def test_an_exact_method_does_not_reach_what_was_measured_on_all_images(given, exact, measured, make_data, fresh, trained):
    data = make_data(Digits(test_size=100, train_size=300, **given))
    row = Panel(fresh, data, "untrain", request_of(data), relearn_epochs=0).score("m", 0, trained, exact=exact)
    said = [note for note in row.notes if note.startswith("Exact but for")]
    assert [note.split(": ")[1].split(" w")[0] for note in said] == ([measured] if measured else [])
    # Nor does what a checkpoint recorded tell how it came about.
    if not given:
        data.dataset = normalised_as(data.dataset, SavedSplit([], [], [], [], mean=[0.3], std=[0.4]))
        [said] = of_statistics(data)
        assert "the forgotten ones among them, unless they were given in the checkpoint's training." in said
    # Of a few of its classes too.
    assert SomeClasses(data.dataset, [1, 2]).measures
