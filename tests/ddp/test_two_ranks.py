"""Two ranks on the CPU give what one gives: weights, artifacts, counts, outputs, reports and files."""

import json
import os
import re
import subprocess
import sys

import jobs
import pytest
import torch

from lightning_unlearn import stages
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.weights.checkpoint import save_weights

pytestmark = pytest.mark.ddp

# Stages that leave artifacts alone.
UNCHANGED = ("AdversarialExamples", "ErrorMaximisingNoise", "EstimateUnseen", "KeepWeights", "MaskLearning", "SaliencyMask")
# Bases, and what works on an ensemble alone, see tests/sisa.
BASES = {"AlternatingStage", "CachedStage", "RetrainShards", "UnlearningStage"}
# Images that every rank runs through the network to see how it is built, before it takes per-sample gradients.
PROBE = 14
# By stage, at most. What looks at no sample of its own rank is done by each: the system of Influence (51 samples, five
# products of two passes forward and backward), and the rounds of SynFlow.
EXTRA = {
    "ErrorMaximisingNoise": 5 * 3 * 3,
    "FisherForgetting": PROBE,
    "FisherNoise": PROBE,
    "Impair": 5 * 3 * 3,
    "Influence": 51 * 6 * 5 + 3,
    "MnemonicForgetting": 10 * 5,
    "SelectiveDampening": 2 * PROBE,
    "SynFlowPrune": 5 * 3,
}
OWN_STAGE = '''
import math

import torch
from torch.nn.functional import cross_entropy

from lightning_unlearn.stages import UnlearningStage


class BoundedAscent(UnlearningStage):
    """Ascend the forget loss up to a ceiling; keep the retain loss low."""

    view = "both"

    def __init__(self, retain_weight: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.retain_weight = retain_weight

    def objective(self, batch):
        forget_logits, retain_logits = self.one_forward(batch)
        forget = cross_entropy(forget_logits, batch["forget"].target, reduction="none")
        retain = cross_entropy(retain_logits, batch["retain"].target, reduction="none")
        bounded = forget.clamp(max=math.log(self.num_classes))
        return self.retain_weight * self.mean(retain, batch["retain"]) - self.mean(bounded, batch["forget"])


class BrokenOnTheLastRank(UnlearningStage):
    view = "retain"

    def objective(self, batch):
        loss = cross_entropy(self.classifier(batch.input), batch.target)
        last = self.trainer.global_rank == self.trainer.world_size - 1
        return loss * float("nan") if last and self.trainer.global_step == 2 else loss
'''
OWN_METHOD = """
stages:
- class_path: bounded.BoundedAscent
  init_args: {max_epochs: 1, retain_weight: 2.0, batch_size: 33, forget_batch_size: 7}
"""
NOISE = """
stages:
- {class_path: GaussianNoise, init_args: {std: 0.1}}
- {class_path: FineTune, init_args: {max_epochs: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    (path / "bounded.py").write_text(OWN_STAGE)
    (path / "bounded.yaml").write_text(OWN_METHOD)
    (path / "noise.yaml").write_text(NOISE)
    jobs.make_start(path)
    return path


def run_quietly(command, folder):
    """Run a command in the folder; what it said where it failed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PL_GLOBAL_SEED", "LOCAL_RANK", "RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr[-6000:]


def launch(folder, names, devices):
    """Run jobs in processes of their own; what each rank found, by job."""
    run_quietly([sys.executable, jobs.__file__, ",".join(names), str(folder), str(devices)], folder)
    files = [folder / f"{','.join(names)}-{devices}-{rank}.pt" for rank in range(devices)]
    return [torch.load(file, weights_only=True) for file in files]


@pytest.fixture(scope="module")
def chains(folder):
    names = ["chains_in_float64", "chains_in_float32", "chains_in_eval_mode"]
    return *launch(folder, names, 1), *launch(folder, names, 2)


@pytest.fixture(scope="module")
def whole(folder):
    names = ["batch_norm_in_train_mode", "evaluation", "unlearn", "failing", "benchmark"]
    return *launch(folder, names, 1), *launch(folder, names, 2)


def difference(a, b):
    assert a.keys() == b.keys()
    return max((float((a[k].double() - b[k].double()).abs().max()) for k in a if a[k].numel()), default=0.0)


def test_every_stage_has_a_chain():
    assert {name.partition(",")[0] for name in jobs.chains(long=True)} == set(stages.__all__) - BASES


@pytest.mark.parametrize("name", list(jobs.chains(long=True)))
def test_twenty_steps_in_float64(chains, name):
    one, first, second = (found["chains_in_float64"][name] for found in chains)
    assert difference(one["weights"], first["weights"]) <= 1e-8
    assert difference(first["weights"], second["weights"]) == 0
    assert first["work"] == pytest.approx(one["work"], rel=1e-6, abs=EXTRA.get(name.partition(",")[0], 0))
    same_summary(one, first, 1e-6)
    for group, tensors in one["artifacts"].items():
        # Artifacts of a pass over samples are float32.
        assert difference(tensors, first["artifacts"][group]) <= (0 if group in ("mask", "reset") else 1e-6)
        assert difference(first["artifacts"][group], second["artifacts"][group]) == 0


def test_shared_links(folder):
    one, first, second = (found["links"] for found in (*launch(folder, ["links"], 1), *launch(folder, ["links"], 2)))
    assert difference(one["weights"], first["weights"]) <= 1e-8
    assert difference(first["weights"], second["weights"]) == 0
    assert first["work"] == pytest.approx(one["work"], rel=1e-6, abs=PROBE)
    for group, tensors in one["artifacts"].items():
        assert difference(tensors, first["artifacts"][group]) <= (0 if group == "mask" else 1e-6)
        assert difference(first["artifacts"][group], second["artifacts"][group]) == 0
    for name, mask in first["artifacts"]["mask"].items():
        assert torch.equal(first["weights"][name][~mask].float(), first["before"][name][~mask])
        assert not torch.equal(first["weights"][name].float(), first["before"][name])


def test_margins_are_recorded_once_a_sample_and_resumed_inside_an_epoch(folder):
    one, first, second = (found["margins"] for found in (*launch(folder, ["margins"], 1), *launch(folder, ["margins"], 2)))
    assert one["steps"] == 6
    for record in (*one["records"], *first["records"], *second["records"]):
        # 174 samples, each once in either epoch.
        assert record["seen"].sum() == 2 * 174
        assert torch.equal(record["seen"].unique(), torch.tensor([0, 2]))
        for name, value in one["records"][0].items():
            close = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
            torch.testing.assert_close(record[name].double(), value.double(), msg=lambda text, n=name: f"{n}: {text}", **close)
    # Two steps of 29 samples, of both ranks.
    assert int(torch.isfinite(first["pending"][1]).sum()) == 2 * 29
    for whole, resumed in (one["records"], first["records"], second["records"]):
        assert all(torch.equal(v.nan_to_num(nan=-7.0), resumed[n].nan_to_num(nan=-7.0)) for n, v in whole.items())
    other = second["records"][0]
    assert all(torch.equal(v.nan_to_num(nan=-7.0), other[n].nan_to_num(nan=-7.0)) for n, v in first["records"][0].items())


@pytest.mark.parametrize("name", list(jobs.chains(long=False)))
def test_an_epoch_in_float32(chains, name):
    one, first, second = (found["chains_in_float32"][name] for found in chains)
    assert difference(one["weights"], first["weights"]) <= 1e-4
    assert difference(first["weights"], second["weights"]) == 0
    assert first["work"] == pytest.approx(one["work"], rel=1e-6, abs=EXTRA.get(name.partition(",")[0], 0))


@pytest.mark.parametrize("name", jobs.IN_EVAL_MODE)
def test_batch_norm_in_eval_mode(chains, name):
    one, first, second = (found["chains_in_eval_mode"][name] for found in chains)
    assert difference(one["weights"], first["weights"]) <= 1e-8
    assert difference(first["weights"], second["weights"]) == 0


def test_every_chain_but_edits_of_artifacts_changes_weights(chains, folder):
    start = torch.load(folder / "group.pt", weights_only=True)
    for name, found in chains[1]["chains_in_float64"].items():
        assert (difference(start, found["weights"]) > 1e-4) == (name not in UNCHANGED), name


def test_batch_norm_in_train_mode_warns_and_stays_close(whole):
    one, first, second = (found["batch_norm_in_train_mode"] for found in whole)
    assert one["warnings"] == [[], []]
    assert all("per-rank statistics" in text for texts in first["warnings"] for text in texts)
    # Once for all stages of a process.
    assert [len(texts) for texts in first["warnings"]] == [1, 0]
    assert second["warnings"] == [[], []]
    for name in ("FineTune", "Retrain"):
        assert difference(first[name]["weights"], second[name]["weights"]) == 0
        for part in ("retain", "test"):
            assert abs(one[name]["accuracy"][part] - first[name]["accuracy"][part]) <= 0.02


def test_ranks_go_back_to_the_same_buffers_and_end_with_them(folder):
    first, second = (found["buffers_of_a_chosen_epoch"] for found in launch(folder, ["buffers_of_a_chosen_epoch"], 2))
    for name in ("chosen", "disturbed"):
        assert difference(first[name]["weights"], second[name]["weights"]) == 0
    chosen = first["chosen"]
    # What was looked at is what came back.
    assert chosen["promised"][chosen["at"]] == pytest.approx(chosen["distance"], abs=1e-6)
    assert chosen["promised"] == second["chosen"]["promised"]


def test_every_sample_is_evaluated_once(whole):
    one, *ranks = (found["evaluation"] for found in whole)
    for (count, precision), parts in one.items():
        assert len(parts["forget"][2]) == count
        for part, (logits, targets, index) in parts.items():
            for rank in ranks:
                other = rank[count, precision][part]
                assert other[0].dtype == torch.float32
                assert torch.equal(other[2], index)
                assert torch.equal(other[1], targets)
                assert torch.allclose(other[0], logits, rtol=1e-5, atol=1e-5)
            assert (logits.abs().sum(1) > 0).all()


def test_unlearn_reports_the_same_and_writes_once(whole):
    one, first, second = (found["unlearn"] for found in whole)
    assert difference(one["weights"], first["weights"]) <= 1e-8
    assert first["report"] == second["report"]
    same_report(one["report"], first["report"])
    assert first["files"] == one["files"]
    assert {"unlearned.ckpt", "split.json", "report.json", "report.html"} <= set(first["files"])
    assert not [name for name in first["files"] if "stage" in name or name.endswith(".tmp")]


def test_benchmark_reports_the_same_and_writes_once(whole, folder):
    one, first, second = (found["benchmark"] for found in whole)
    for turn in ("first", "again", "bank only"):
        assert first[turn]["report"] == second[turn]["report"]
        assert "bounded/method/0" in first[turn]["report"]["rows"]
        same_report(one[turn]["report"], first[turn]["report"])
        assert first[turn]["files"] == one[turn]["files"]
        assert not [name for name in first[turn]["files"] if name.endswith(".tmp")]
    assert first["again"]["report"] == first["first"]["report"]
    assert first["again"]["files"] == first["first"]["files"]
    assert len(list((folder / "bank-2").glob("*/weights.ckpt"))) == 3
    for row in first["first"]["report"]["rows"].values():
        assert not [note for note in row["notes"] if "failed" in note]


def test_a_broken_loss_on_one_rank_ends_the_stage_on_all(whole):
    one, first, second = (found["failing"] for found in whole)
    for found in (one, first, second):
        assert len(found["errors"]) == 2
        assert all("loss is not finite at batch 2 of epoch 0" in text for text in found["errors"])
        assert found["untouched"]
    assert difference(one["weights"], first["weights"]) <= 1e-4
    assert difference(first["weights"], second["weights"]) == 0


def test_an_ensemble_of_shards(folder):
    one, first, second = (found["sisa"] for found in (*launch(folder, ["sisa"], 1), *launch(folder, ["sisa"], 2)))
    for found in (one, first, second):
        assert difference(found["weights"], found["fresh"]) == 0
        assert difference(found["weights"], found["first"]) > 1e-4
        assert found["left"] == [".lock", "slices/slices.json", "split.json"]
    for name in ("first", "weights"):
        assert difference(one[name], first[name]) <= 1e-8
        assert difference(first[name], second[name]) == 0
    assert one["work"] == first["work"] > 0
    # Names of slices stand for the number of ranks too.
    assert [re.sub(r"-[0-9a-f]{16}", "", name) for name in one["files"]] == [
        re.sub(r"-[0-9a-f]{16}", "", name) for name in first["files"]
    ]
    assert one["files"] != first["files"]


def test_the_command_line_on_two_ranks(folder):
    model = Classifier("SmallCNN", num_classes=10, in_chans=1, image_size=8)
    save_weights(folder / "start.ckpt", model.state_dict(), {})
    data = "--data.dataset Digits --data.dataset.train_size 205 --data.forget RandomFraction --data.forget.fraction 0.1"
    rest = "--model.network SmallCNN --data.unseen 31 --data.batch_size 33 --trainer.accelerator cpu --relearn_epochs 0"
    reports = []
    for devices in (1, 2):
        output = folder / f"cli-{devices}"
        ranks = f"--trainer.devices {devices} --trainer.precision 64-true --output {output} --checkpoint {folder}/start.ckpt"
        ranks += " --trainer.strategy ddp" if devices > 1 else ""
        command = [sys.executable, "-m", "lightning_unlearn", "unlearn", "-c", str(folder / "noise.yaml")]
        run_quietly([*command, *data.split(), *rest.split(), *ranks.split()], folder)
        rows = json.loads((output / "report.json").read_text())["rows"]
        reports.append({
            row["method"]: {k: v for k, v in row["metrics"].items() if not k.startswith(("time/", "memory/"))} for row in rows
        })
        assert (output / "unlearned.ckpt").exists()
        assert not list(output.glob("stage*"))
    one, two = reports
    assert one.keys() == two.keys()
    for method, metrics in one.items():
        assert metrics == pytest.approx(two[method], abs=1e-4, rel=1e-4, nan_ok=True)


def same_summary(one, two, tolerance):
    for a, b in zip(one["summary"], two["summary"], strict=True):
        assert a.keys() == b.keys()
        for group, values in a.items():
            assert values.keys() == b[group].keys()
            assert values == pytest.approx(b[group], abs=tolerance), group


def same_report(one, two):
    assert json.dumps(one["warnings"]) == json.dumps(two["warnings"])
    assert one["levels"].keys() == two["levels"].keys()
    assert one["rows"].keys() == two["rows"].keys()
    for name, row in one["rows"].items():
        other = two["rows"][name]
        assert row["notes"] == other["notes"]
        assert row["metrics"].keys() == other["metrics"].keys()
        for metric, value in row["metrics"].items():
            assert value == pytest.approx(other["metrics"][metric], abs=1e-4, rel=1e-4, nan_ok=True), f"{name} {metric}"
