import pytest
import torch
from groups import group
from helpers import untrained

from lightning_unlearn.audit.answers import Answers, answers_of, audited_samples, rounded_to_int8
from lightning_unlearn.evaluation.collecting import outputs_of
from lightning_unlearn.exceptions import DataError


def equal(a, b):
    return all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
        for x, y in ((a.margins, b.margins), (a.correct, b.correct), (a.costs, b.costs))
    )


def test_answers_are_those_of_an_evaluation(make_data, fresh, trained):
    data = make_data(unseen=30)
    outputs = outputs_of(fresh, trained, data).parts()
    answers = answers_of(fresh, [trained, untrained()], data, audited_samples(data))
    assert len(answers) == 2
    assert set(answers.margins) == set(outputs) == {"forget", "retain", "test", "unseen"}
    for part, of_part in outputs.items():
        torch.testing.assert_close(answers.margins[part][0], of_part.margins, rtol=1e-5, atol=1e-4)
        assert answers.margins[part].dtype == torch.float64
        assert float(answers.accuracy(part)[0]) == pytest.approx(of_part.accuracy)


def test_a_diverged_model_is_refused(make_data, fresh):
    model = untrained()
    torch.nn.init.constant_(model.network.fc.bias, torch.inf)
    with pytest.raises(DataError, match="not finite"):
        answers_of(fresh, [model], make_data(), {"forget": torch.tensor([0])})


def test_large_parts_are_sampled_and_forgotten_samples_are_not(make_data, monkeypatch):
    monkeypatch.setattr("lightning_unlearn.audit.answers.SAMPLES", 20)
    data = make_data()
    samples = audited_samples(data)
    assert torch.equal(samples["forget"], data.part("forget")[1])
    assert len(samples["retain"]) == len(samples["test"]) == 20


def test_what_is_written_is_read_and_what_is_damaged_is_not(tmp_path):
    answers = group(3).with_costs({"seconds": torch.rand(3, dtype=torch.float64)})
    answers.save(tmp_path / "a.pt")
    assert equal(Answers.load(tmp_path / "a.pt"), answers)
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    assert Answers.load(tmp_path / "a.pt") is None
    assert Answers.load(tmp_path / "none.pt") is None


def test_groups_are_joined_cut_and_renamed():
    whole = group(6)
    assert equal(Answers.joined([whole[:2], whole[2:]]), whole)
    both = whole.with_parts(whole.renamed("int8"))
    assert torch.equal(both.margins["forget/int8"], whole.margins["forget"])
    assert set(Answers.joined([both, whole]).margins) == set(whole.margins)
    assert not [part for part in both.without("unseen").margins if part.startswith("unseen")]


def test_rounding_moves_no_weight_by_more_than_half_a_step():
    model = untrained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = rounded_to_int8(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    weight, other = before["network.fc.weight"], rounded["network.fc.weight"]
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((weight - other).abs() <= step / 2 + 1e-8).all())
    assert not torch.equal(weight, other)
