import pickle

import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.outputs import Outputs, PartOutputs


def part(n=6, k=3, first=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return PartOutputs(
        torch.randn(n, k, generator=generator),
        torch.randint(k, (n,), generator=generator),
        torch.arange(first, first + n),
    )


def outputs(unseen=True):
    return Outputs(part(4), part(8, first=4), part(5), part(3, first=20) if unseen else None)


def test_properties_of_a_part():
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
    p = PartOutputs(logits, torch.tensor([1, 1, 1]), torch.tensor([2, 5, 9]))
    assert p.predictions.tolist() == [1, 0, 1]
    assert p.accuracy == pytest.approx(2 / 3)
    assert isinstance(p.accuracy, float)
    torch.testing.assert_close(p.probabilities, logits.double().softmax(1))
    torch.testing.assert_close(p.confidence, p.probabilities[:, 1])
    torch.testing.assert_close(p.margins, (logits[:, 1] - logits[:, 0]).double())
    assert len(p) == 3
    assert p.num_classes == 2


def test_margins_tell_samples_apart_whose_confidence_is_one():
    p = PartOutputs(torch.tensor([[50.0, 0.0], [60.0, 0.0]]), torch.tensor([0, 0]), torch.arange(2))
    assert p.confidence.unique().tolist() == [1.0]
    assert p.margins.tolist() == [50.0, 60.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(6)}, "needed: \\(N, K\\)"),
        ({"logits": torch.zeros(6, 3, dtype=torch.float64)}, "torch.float32"),
        ({"logits": torch.zeros(6, 1)}, "two classes"),
        ({"logits": torch.zeros(5, 3)}, "one per row"),
        ({"logits": torch.full((6, 3), torch.nan)}, "6 of 6 samples"),
        ({"targets": torch.zeros(6)}, "torch.int64"),
        ({"targets": torch.tensor([0, 1, 2, 3, 0, 0])}, "0 to 2"),
        ({"targets": torch.tensor([0, -100, 2, 2, 0, 0])}, "from -100"),
        ({"index": torch.tensor([0, 1, 2, 3, 4, 4])}, "repeat"),
        ({"index": torch.tensor([1, 0, 2, 3, 4, 5])}, "out of order"),
    ],
)
def test_a_part_that_cannot_be_used_is_refused(change, message):
    good = part()
    fields = {"logits": good.logits, "targets": good.targets, "index": good.index, **change}
    with pytest.raises(DataError, match=message):
        PartOutputs(**fields)


def test_an_empty_part_is_refused():
    with pytest.raises(DataError, match="at least one sample"):
        PartOutputs(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def test_parts_lists_what_is_there():
    assert list(outputs().parts()) == ["forget", "retain", "test", "unseen"]
    assert list(outputs(unseen=False).parts()) == ["forget", "retain", "test"]


def test_parts_must_be_disjoint_and_of_one_model():
    with pytest.raises(DataError, match="2 samples are in forget and in retain"):
        Outputs(part(4), part(8, first=2), part(5))
    with pytest.raises(DataError, match="different numbers of classes"):
        Outputs(part(4), part(8, first=4, k=4), part(5))


@pytest.mark.parametrize("unseen", [True, False])
def test_save_and_load(tmp_path, unseen):
    path = tmp_path / "new" / "outputs.pt"
    saved = outputs(unseen)
    saved.save(path)
    loaded = Outputs.load(path)
    assert loaded.parts().keys() == saved.parts().keys()
    for name, p in saved.parts().items():
        for field in ("logits", "targets", "index"):
            assert getattr(p, field).equal(getattr(loaded.parts()[name], field))


def test_a_saved_part_of_a_larger_tensor_does_not_carry_the_rest(tmp_path):
    large = part(10_000)
    few = PartOutputs(large.logits[:2], large.targets[:2], large.index[:2])
    Outputs(few, part(8, first=4), part(5)).save(tmp_path / "o.pt")
    assert (tmp_path / "o.pt").stat().st_size < 20_000


def test_unreadable_files_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"missing\.pt"):
        Outputs.load(tmp_path / "missing.pt")
    outputs().save(tmp_path / "cut.pt")
    whole = (tmp_path / "cut.pt").read_bytes()
    for length in (0, len(whole) // 2):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.pt"):
            Outputs.load(tmp_path / "cut.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="does not hold outputs"):
        Outputs.load(tmp_path / "other.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(DataError, match="does not hold outputs"):
        Outputs.load(tmp_path / "list.pt")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("plain", [True, False])
def test_loading_runs_no_code_of_the_file(tmp_path, plain):
    harm = tmp_path / "harm"
    if plain:
        (tmp_path / "bad.pt").write_bytes(pickle.dumps(Payload(str(harm)), protocol=2))
    else:
        torch.save({"forget.logits": Payload(str(harm))}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=r"bad\.pt"):
        Outputs.load(tmp_path / "bad.pt")
    assert not harm.exists()


def test_gathered_sorts_and_counts_padded_samples_once():
    p = part(7, seed=3)
    rows = torch.tensor([6, 0, 3, 1, 5, 2, 4, 6, 0])
    again = PartOutputs.gathered(p.logits[rows].double(), p.targets[rows], p.index[rows])
    assert again.logits.equal(p.logits)
    assert again.targets.equal(p.targets)
    assert again.index.equal(p.index)


def test_select():
    p = part(6)
    kept = p.select(p.index >= 4)
    assert kept.index.tolist() == [4, 5]
    assert kept.logits.equal(p.logits[4:])
