import json

import pytest
import torch

from lightning_unlearn.attacks.threshold import auc, roc
from lightning_unlearn.metrics.details import class_rows, margin_histograms, roc_points


def test_histograms_share_bins_and_lose_no_sample():
    generator = torch.Generator().manual_seed(0)
    sets = {
        "a": torch.randn(500, generator=generator).double(),
        "b": 4 + torch.randn(80, generator=generator).double(),
    }
    sets["a"][0], sets["b"][0] = -1e6, 1e6
    found = margin_histograms(sets, bins=20)
    edges, counts = torch.tensor(found["edges"], dtype=torch.float64), found["counts"]
    assert len(edges) == 21
    assert -4 < edges[0] < edges[-1] < 8
    for name, values in sets.items():
        assert sum(counts[name]) == len(values)
        inner = torch.histogram(values[(values >= edges[0]) & (values < edges[-1])], edges).hist
        assert counts[name][1:-1] == inner[1:-1].int().tolist()


def test_a_histogram_of_equal_margins():
    found = margin_histograms({"a": torch.full((7,), 3.0)})
    assert sum(found["counts"]["a"]) == 7
    assert found["edges"][0] < 3 < found["edges"][-1]


@pytest.mark.parametrize("n", [1, 60, 5000])
def test_roc_points_are_points_of_the_curve(n):
    generator = torch.Generator().manual_seed(0)
    members, others = torch.randn(n, generator=generator) + 1, torch.randn(2 * n, generator=generator)
    found = roc_points(members, others)
    assert 2 <= len(found["fpr"]) <= 200
    assert (found["fpr"][0], found["tpr"][0]) == (0, 0)
    assert (found["fpr"][-1], found["tpr"][-1]) == (1, 1)
    assert found["fpr"] == sorted(found["fpr"])
    full = roc(members, others)
    on_curve = set(zip(full.fpr.tolist(), full.tpr.tolist(), strict=True))
    assert set(zip(found["fpr"], found["tpr"], strict=True)) <= on_curve
    area = torch.trapezoid(torch.tensor(found["tpr"]), torch.tensor(found["fpr"])).item()
    assert area == pytest.approx(auc(members, others), abs=0.01)


def test_thinned_roc_keeps_the_low_rates():
    generator = torch.Generator().manual_seed(0)
    found = roc_points(torch.randn(5000, generator=generator) + 1, torch.randn(5000, generator=generator))
    assert sum(fpr <= 0.01 for fpr in found["fpr"]) > 50


def test_class_rows(make_outputs):
    model = make_outputs(gone=(3,))
    rows = class_rows(model)
    assert [row["class"] for row in rows] == list(range(5))
    assert rows[3]["retain_n"] == 0
    assert rows[3]["retain_acc"] is None
    assert rows[3]["forget_n"] == 60
    assert rows[3]["forget_acc"] == pytest.approx(100 * model.forget.accuracy)
    for part in ("retain", "test"):
        total = sum(row[f"{part}_n"] * (row[f"{part}_acc"] or 0) for row in rows)
        assert total / len(model.parts()[part]) == pytest.approx(100 * model.parts()[part].accuracy)
    json.dumps(rows, allow_nan=False)
