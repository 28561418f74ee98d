import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_unlearn.metrics.accuracy import Accuracy, MarginMean, UnlearningAccuracy
from lightning_unlearn.metrics.gaps import scores
from lightning_unlearn.metrics.mia_efficacy import MiaEfficacy
from lightning_unlearn.metrics.per_sample import each_once


def feed(metric, part, batch=7, *rest):
    for rows in torch.arange(len(part)).split(batch):
        metric.update(part.logits[rows], part.targets[rows], part.index[rows], *rest)
    return metric


def test_values_are_those_of_the_outputs(make_part):
    p = make_part()
    assert feed(Accuracy(), p).compute().item() == pytest.approx(100 * p.accuracy)
    assert feed(UnlearningAccuracy(), p).compute().item() == pytest.approx(100 - 100 * p.accuracy)
    assert feed(MarginMean(), p).compute().item() == pytest.approx(p.margins.mean().item())


def test_samples_that_come_twice_count_once(make_part):
    p = make_part(21)
    metric = feed(feed(Accuracy(), p.select(p.index < 5)), p)
    assert metric.compute().item() == pytest.approx(100 * p.accuracy)


def test_reset_forgets(make_part):
    a, b = make_part(30), make_part(40, seed=1)
    metric = feed(MarginMean(), a)
    metric.compute()
    metric.reset()
    assert feed(metric, b).compute().item() == pytest.approx(b.margins.mean().item())


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_sample_gives_no_number():
    assert math.isnan(Accuracy().compute().item())
    assert math.isnan(MiaEfficacy().compute().item())


def test_half_precision_logits_are_read_in_double(make_part):
    p = make_part()
    metric = MarginMean()
    metric.update(p.logits.bfloat16(), p.targets, p.index)
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("gone", [(), (2,)])
def test_mia_efficacy_is_that_of_the_screen(make_outputs, gone):
    model = make_outputs(gone=gone)
    metric = MiaEfficacy(seed=4)
    for name in ("forget", "retain", "test"):
        feed(metric, model.parts()[name], 32, name)
    assert metric.compute().item() == pytest.approx(scores(model, seed=4).mia)


def test_mia_efficacy_names_its_parts(make_part):
    with pytest.raises(ValueError, match="forget, retain, test"):
        feed(MiaEfficacy(), make_part(), 32, "unseen")


def test_each_once_keeps_the_first_of_each_index():
    index, value = each_once(torch.tensor([3, 1, 3, 2, 1]), torch.tensor([30, 10, 31, 20, 11]))
    assert index.tolist() == [1, 2, 3]
    assert value.tolist() == [10, 20, 30]


def test_two_ranks_count_like_one(make_outputs, tmp_path):
    # Odd sizes, so that a distributed sampler pads every part.
    model = make_outputs(sizes=(31, 101, 77, 9))
    model.save(tmp_path / "outputs.pt")
    script = Path(__file__).with_name("two_ranks.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "outputs.pt")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(script.parent))
    try:
        from two_ranks import values
    finally:
        sys.path.remove(str(script.parent))
    alone = values(model, {name: torch.arange(len(model.parts()[name])) for name in ("forget", "retain", "test")})
    ranks = json.loads(done.stdout.splitlines()[-1])
    assert len(ranks) == 2
    for rank in ranks:
        for kind in ("padded", "one rank empty"):
            assert rank[kind] == pytest.approx(alone, abs=1e-9), kind
