import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.suspected import SuspectedMislabels
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.imitation import Neighbours
from lightning_unlearn.stages import EstimateUnseen, Relabel


def test_relabel_against_a_plain_loop(trained, make_data, fresh):
    data, model = make_data(), copy.deepcopy(trained)
    stage = Relabel(max_steps=8, forget_batch_size=8, optimizer=sgd(0.05, momentum=0.9))
    run_chain(fresh, model, data, [EstimateUnseen([Neighbours(3)], calibrate=False), stage])
    targets = stage.artifacts["targets"]
    suggested = torch.zeros(len(data.samples), dtype=torch.int64)
    suggested[targets["index"]] = targets["probabilities"].argmax(1)
    plain = trained.train()
    optimizer = sgd(0.05, momentum=0.9)(list(plain.parameters()))
    for batch in steps(data, stage, 0, 1):
        forget, retain = batch["forget"], batch["retain"]
        labels = torch.cat([suggested[forget.index], retain.target])
        optimizer.zero_grad()
        F.cross_entropy(plain(torch.cat([forget.input, retain.input])), labels).backward()
        optimizer.step()
    assert_same(model, plain)


def test_most_wrong_labels_are_taken_back(memorising, fresh):
    model, data = memorising
    index = data.part("forget")[1]
    given, true = data.samples.targets[index], data.dataset.train.targets[index]
    wrong = given != true
    assert wrong.sum() >= 10
    batch = next(iter(data.evaluation_loader("forget")))
    with torch.no_grad():
        before = (model(batch.input).argmax(1) == true)[wrong].float().mean()
    # At the pixels: the features of a network that knows wrong labels by heart repeat them.
    estimate = EstimateUnseen([Neighbours(15, layer="pixels")], calibrate=False)
    run_chain(fresh, model, data, [estimate, Relabel(passes=15, optimizer=sgd(0.05, momentum=0.9))])
    with torch.no_grad():
        after = (model(batch.input).argmax(1) == true)[wrong].float().mean()
    assert before < 0.2
    assert after > 0.6


@pytest.mark.parametrize("by", ["rule", "path"])
def test_labels_of_a_file_against_a_plain_loop(by, trained, make_data, fresh, tmp_path):
    data, model = make_data(), copy.deepcopy(trained)
    samples, index = data.part("forget")
    suggested = (samples.targets + 3) % 10
    rows = [f"{samples.keys[i]},1.0,{int(suggested[i])},1" for i in index.tolist()]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["key,loss,suggested,suspected", *rows]))
    data.draw(0, SuspectedMislabels(path))
    assert torch.equal(data.part("forget")[1], index)
    optimizer = sgd(0.05, momentum=0.9)
    stage = Relabel(str(path) if by == "path" else "rule", max_steps=8, forget_batch_size=8, optimizer=optimizer)
    run_chain(fresh, model, data, [stage])
    plain = trained.train()
    optimizer = optimizer(list(plain.parameters()))
    for batch in steps(data, stage, 0, 0):
        forget, retain = batch["forget"], batch["retain"]
        labels = torch.cat([suggested[forget.index], retain.target])
        optimizer.zero_grad()
        F.cross_entropy(plain(torch.cat([forget.input, retain.input])), labels).backward()
        optimizer.step()
    assert_same(model, plain)


def test_samples_without_a_suggestion_are_refused_before_anything_runs(trained, make_data, fresh, tmp_path):
    data = make_data()
    with pytest.raises(ChainError, match="the forget rule is RandomFraction; needed: SuspectedMislabels"):
        run_chain(fresh, trained, data, [Relabel("rule")])
    samples, index = data.part("forget")
    (tmp_path / "s.csv").write_text(f"key,suggested\n{samples.keys[int(index[0])]},4\n")
    with pytest.raises(ChainError, match=f"suggests no label for {len(index) - 1} of {len(index)} forgotten samples"):
        run_chain(fresh, trained, data, [Relabel(str(tmp_path / "s.csv"))])
